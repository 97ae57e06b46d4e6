"""The Python examples of the README and of the documentation run as they stand."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Pages whose blocks go on from one another, as in a notebook.
CONTINUED = (
    "tuning",
    "learned_schwarz",
    "node_classification",
    "graph_classification",
    "matching",
    "hybrid_lm",
)
# Pages on data sets that are not part of the project, and what makes them short.
DATA = ROOT.parent / "shared" / "data"
SHORTER = {
    "node_classification": {"SEEDS = 3": "SEEDS = 1", "EPOCHS = 100": "EPOCHS = 2"},
    "graph_classification": {"FOLDS = 3": "FOLDS = 1", "EPOCHS = 50": "EPOCHS = 1"},
    "matching": {"synthetic_logs(1000": "synthetic_logs(120"},
}


def blocks(page: Path) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    return ["\n".join(found)] if page.stem in CONTINUED else found


def needs_data(page: Path) -> list[pytest.MarkDecorator]:
    missing = page.stem in SHORTER and not DATA.is_dir()
    return [pytest.mark.skipif(missing, reason=f"no {DATA}: the data sets are not here")]


EXAMPLES = [
    pytest.param(code, id=f"{page.stem}-{number}", marks=needs_data(page))
    for page in PAGES
    for number, code in enumerate(blocks(page))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_example(code, monkeypatch, request, tmp_path):
    if "random_mesh" in code:
        request.getfixturevalue("gmsh")
    for entry in ROOT.iterdir():  # what an example writes does not go into the repository
        (tmp_path / entry.name).symlink_to(entry)
    for long, short in SHORTER.get(request.node.callspec.id.rpartition("-")[0], {}).items():
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRAPH_DATA", str(DATA))
    exec(compile(code, "example", "exec"), {})
