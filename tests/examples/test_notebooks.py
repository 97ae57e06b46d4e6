"""Notebooks are pages of the documentation, and what they show is what their cells do."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot as plt

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "examples"))

from notebook_from_page import cells, main, run  # noqa: E402

PAGES = {
    "tune_a_solver": "tuning",
    "node_classification": "node_classification",
    "graph_classification": "graph_classification",
    "match_devices": "matching",
}
every_notebook = pytest.mark.parametrize("name", PAGES)


def read(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "examples" / f"{name}.ipynb").read_text())


@every_notebook
def test_its_cells_are_the_blocks_and_the_text_of_the_page(name):
    """tests/test_docs.py runs the pages."""
    notebook, page = read(name), ROOT / "docs" / f"{PAGES[name]}.md"
    fields = ("cell_type", "id", "source")
    found = [{field: cell[field] for field in fields} for cell in notebook["cells"]]
    expected = [{field: cell[field] for field in fields} for cell in cells(page.read_text())]
    again = f"python examples/notebook_from_page.py docs/{page.name} examples/{name}.ipynb"
    assert found == expected, f"the page has changed; run {again}"


@every_notebook
def test_its_form_is_that_of_the_notebook_format(name):
    notebook = read(name)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    kinds = {output["output_type"] for cell in code for output in cell["outputs"]}
    assert "stream" in kinds
    assert kinds <= {"stream", "display_data"}
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(notebook))


def test_cells_are_run_in_order_and_their_outputs_kept(tmp_path, monkeypatch):
    page = (
        "# Title\n\n[a](b.md) ![c](images/d.png) [e](https://f.g)\n\n"
        "```python\nx = 2\n```\n\ntext\n\n```python\nprint(x + 1)\n"
        "from matplotlib import pyplot as plt\nplt.plot([1, 2])\nopen('left', 'w').close()\n```\n"
    )
    plt.close("all")  # a cell would draw into what another test left open
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "page.md"), str(tmp_path / "n.ipynb")])
    monkeypatch.chdir(tmp_path)
    main()
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "n.ipynb"}
    title, first, text, second = json.loads((tmp_path / "n.ipynb").read_text())["cells"]
    text_of_title = "".join(title["source"])
    assert text_of_title.startswith("# Title\n")
    assert "[a](../docs/b.md) ![c](../docs/images/d.png) [e](https://f.g)" in text_of_title
    assert text["source"] == ["text"]
    assert first["outputs"] == []
    assert second["outputs"][0]["text"] == ["3\n"]
    assert "image/png" in second["outputs"][1]["data"]


def test_a_cell_that_fails_is_named(tmp_path):
    before = Path.cwd()
    with pytest.raises(ZeroDivisionError) as caught:
        run(cells("```python\n1 / 0\n```\n"))
    assert caught.traceback[-1].path == Path("cell 1") or "cell 1" in str(caught.traceback[-1])
    assert Path.cwd() == before
