"""The Python examples of the README and of the documentation run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose blocks go on from one another, as in a notebook.
CONTINUED = ("tuning", "learned_schwarz")


def blocks(page: Path) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return ["\n".join(found)] if page.stem in CONTINUED else found


EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, code in enumerate(blocks(page))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code, monkeypatch, request, tmp_path):
    if "random_mesh" in code:
        request.getfixturevalue("gmsh")
    for entry in ROOT.iterdir():  # what an example writes does not go into the repository
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {})
