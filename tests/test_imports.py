"""Imports run one way, and importing a package needs torch, NumPy and SciPy only."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "sparsetorch_kernels": ROOT / "kernels" / "sparsetorch_kernels",
    "sparsetorch": ROOT / "sparsetorch",
    "graphnets": ROOT / "graphnets",
    "ddm": ROOT / "ddm",
    "nemotron_blocks": ROOT / "nemotron_blocks",
}
BELOW = {  # what each package may import, besides itself and what others publish
    "sparsetorch_kernels": set(),
    "sparsetorch": {"sparsetorch_kernels"},
    "graphnets": {"sparsetorch_kernels", "sparsetorch"},
    "ddm": {"sparsetorch_kernels", "sparsetorch", "graphnets"},
    "nemotron_blocks": {"sparsetorch_kernels", "sparsetorch"},
}
OURS = {*PACKAGES, "kernels", "tests", "examples", "benchmarks"}
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric"}
OPTIONAL = [  # import names of the extras, and triton, which a CPU build of torch lacks
    *LIGHTNING, "gmsh", "hypothesis", "jsonargparse", "matplotlib", "meshio", "pyamg", "pymetis",
    "pytest", "safetensors", "skfem", "tensorboard", "tokenizers", "torch_geometric", "triton",
]  # fmt: skip


def imported(source: str) -> Iterator[tuple[int, str]]:
    """Line and top-level name of each absolute import, at module level or within a function."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                for alias in node.names:
                    yield node.lineno, alias.name.partition(".")[0]
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module.partition(".")[0]
            case ast.Call(func=loader, args=[ast.Constant(value=str(module)), *_]):
                by_name = ast.unparse(loader).endswith(("import_module", "__import__"))
                if by_name and not module.startswith("."):
                    yield node.lineno, module.partition(".")[0]


def imports_under(folder: Path) -> Iterator[tuple[Path, int, str]]:
    for path in sorted(folder.rglob("*.py")):
        for line, name in imported(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT), line, name


def test_the_reader_of_imports_sees_every_form():
    source = """
import a.b, c
from d.e import f
from . import g
from .h import i
def late():
    import j
    if True:
        from k import l
importlib.import_module("m.n")
import_module(".o", __package__)
__import__("p")
"""
    assert [name for _, name in sorted(imported(source))] == ["a", "c", "d", "j", "k", "m", "p"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_is_below_it(package):
    allowed = BELOW[package] | {package}
    upward = [
        f"{path}:{line} imports {name}"
        for path, line, name in imports_under(PACKAGES[package])
        if name in OURS - allowed
    ]
    assert not upward, "\n".join(upward)


def test_lightning_is_imported_only_where_it_belongs():
    stray = [
        f"{path}:{line} imports {name}"
        for folder in (*PACKAGES.values(), ROOT / "benchmarks")
        for path, line, name in imports_under(folder)
        if name in LIGHTNING and path.name != "lightning.py"
    ]
    assert not stray, "\n".join(stray)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_without_the_extras(package):
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({OPTIONAL}))\n"  # None: as if not installed
        f"import {package}"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
