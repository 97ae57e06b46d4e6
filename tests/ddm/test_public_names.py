"""The names of `import ddm`: each is there when it is used, and says what it needs."""

import importlib
import subprocess
import sys

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


def test_other_names_are_missing_attributes():
    with pytest.raises(AttributeError, match="module 'ddm' has no attribute 'nothing'"):
        _ = ddm.nothing
    assert not hasattr(ddm, "partition.partition")


def test_a_missing_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'skfem'", name="skfem")

    monkeypatch.delitem(vars(ddm), "poisson", raising=False)
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(
        ImportError, match=r"ddm\.poisson needs skfem: pip install 'sparsetorch\[ddm"
    ):
        _ = ddm.poisson
