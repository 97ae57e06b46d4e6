"""The names of `import ddm`: each is there when it is used, and says what it needs."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import ddm


@pytest.mark.parametrize("name", ddm.__all__)
def test_each_name_is_that_of_its_module(name):
    value = getattr(ddm, name)
    assert value is getattr(sys.modules[value.__module__], name)
    assert value.__module__.startswith("ddm.")


def test_modules_need_no_import_of_their_own():
    code = "import ddm; ddm.multilevel.recursive, ddm.schwarz.Schwarz, ddm.pieces.repair"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(ddm.__file__).read_text())
    checked = [node for node in tree.body if isinstance(node, ast.If)]
    assert [ast.unparse(node.test) for node in checked] == ["TYPE_CHECKING"]
    seen = {
        (alias.name, alias.asname, node.module)
        for node in checked[0].body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {(name, name, f"ddm.{ddm._HOME[name]}") for name in ddm.__all__}


def test_names_are_listed_before_they_are_used():
    code = "import ddm; print(*{*dir(ddm)} - {*vars(ddm)})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(run.stdout.split()) == set(ddm.__all__)


def test_other_names_are_missing_attributes():
    with pytest.raises(AttributeError, match="module 'ddm' has no attribute 'nothing'"):
        _ = ddm.nothing
    assert not hasattr(ddm, "partition.partition")


@pytest.mark.parametrize(
    ("name", "module", "said"),
    [
        ("poisson", "skfem", r"ddm\.poisson needs skfem: pip install 'sparsetorch\[ddm\]'"),
        ("lightning", "lightning", r"ddm\.lightning needs lightning: .*sparsetorch\[train\]'"),
        ("lightning", "lightning.pytorch", r"ddm\.lightning needs lightning: .*\[train\]'"),
        ("lightning", "skfem", r"ddm\.lightning needs skfem: .*sparsetorch\[ddm\]'"),
    ],
)
def test_a_missing_extra_is_named(name, module, said, monkeypatch):
    def missing(_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.delitem(vars(ddm), name, raising=False)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=said):
        getattr(ddm, name)
