"""The reference in docs/reference: every public name of the packages is on its page."""

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = sorted((DOCS / "reference").glob("*.md"))
PUBLIC = {  # package: of which each page has the names
    "sparsetorch": ("", ".linalg", ".precond", ".graph", ".nn", ".distributed", ".resumable"),
    "graphnets": (
        "",
        ".datasets",
        ".published",
        ".matching",
        ".matching.cikm",
        ".matching.synthetic",
    ),
    "ddm": ("", ".coarse", ".mesh", ".problems", ".plot", ".published"),
    "nemotron_blocks": ("", ".parallel"),
}
DIRECTIVE = re.compile(r"^::: (\S+)\n((?: +.*\n)*)", re.MULTILINE)


def documented(page: Path) -> list[tuple[str, list[str] | None]]:
    """Modules that mkdocstrings documents on a page, and the names that are asked for."""
    found = []
    for name, indented in DIRECTIVE.findall(page.read_text() + "\n"):
        options = (yaml.safe_load(indented) or {}).get("options", {})
        found.append((name, options.get("members")))
    return found


def shown(name: str, members: list[str] | None) -> list[Any]:
    """What mkdocstrings shows of a module: what is asked for, else its public names.

    Where a module has the name of a function that is imported from it, the module hides it.
    """
    module = importlib.import_module(name)
    if members is None:
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == name]
        members = getattr(module, "__all__", [n for n in own if not n.startswith("_")])
    file = Path(str(module.__file__))
    hidden = {f.stem for f in file.parent.glob("*.py")} if file.stem == "__init__" else set()
    return [getattr(module, member) for member in members or () if member not in hidden]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_every_public_name_once(page):
    pytest.importorskip("lightning", reason="needs sparsetorch[train]")
    everything = [value for entry in documented(page) for value in shown(*entry)]
    for part in PUBLIC[page.stem]:
        module = importlib.import_module(page.stem + part)
        for name in module.__all__:
            value = getattr(module, name)
            if not isinstance(value, ModuleType):
                assert sum(value is other for other in everything) == 1, name


def test_each_package_has_a_page_that_the_navigation_names():
    assert [page.stem for page in PAGES] == sorted(PUBLIC)
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    assert all(f"reference/{page.name}" in navigation for page in PAGES)
