"""Finding, building and loading the C++ library, and what happens when that fails.

A stand-in compiler, a shell script that copies a library built before, makes a build take
milliseconds. What loads the library for real runs in processes of its own.
"""

import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch

from sparsetorch_kernels import _native

PRODUCT = """
import warnings, torch
from sparsetorch_kernels import Layout, backend_info, spmv
i = torch.tensor
a = Layout(i([0, 1, 2]), i([1, 0]), None, i([0, 1, 2]), i([1, 0]), i([1, 0]), 2, 2)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        assert spmv(a, i([2.0, 3.0]), i([5.0, 7.0])).tolist() == [14.0, 15.0]
ours = [str(w.message) for w in caught if "sparsetorch" in str(w.message)]
print(len(ours), backend_info()["cpu"], *ours)
"""


@pytest.fixture(scope="module")
def library() -> bytes:
    """The machine code of the library that the other tests use."""
    if _native.ops() is None:
        pytest.skip(f"no native library: {_native.status()}")
    path = Path(_native.status().removeprefix("native (").removesuffix(")"))
    contents = path.read_bytes()
    return contents if path == _native._SHIPPED else contents[: -_native._DIGEST_BYTES]


@pytest.fixture
def compiler(library, tmp_path, monkeypatch) -> Path:
    """A stand-in for g++ and an empty cache; each build appends a line to `log` beside it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "prebuilt").write_bytes(library)
    script = folder / "g++"
    script.write_text(
        f"""#!/bin/sh
[ "$1" = --version ] && echo stand-in && exit 0
echo built >> {folder}/log
while [ "$1" != -o ]; do shift; done
cp {folder}/prebuilt "$2"
"""
    )
    script.chmod(0o700)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("SPARSETORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_native, "_SHIPPED", tmp_path / "nothing shipped.so")
    return script


@pytest.fixture
def loaded(monkeypatch) -> list[Path]:
    """The libraries that would be loaded; a process can load this one only once."""
    paths = []
    monkeypatch.setattr(torch.ops, "load_library", lambda path: paths.append(Path(path)))
    return paths


def builds(compiler: Path) -> int:
    log = compiler.parent / "log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def load(mode: str = "require"):
    """What the first use of the library does in a fresh process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSETORCH_NATIVE", mode)
        return _native._load.__wrapped__()


def in_a_process(**environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", PRODUCT],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


def test_a_build_is_kept(compiler, loaded):
    load()
    load()
    assert builds(compiler) == 1
    assert loaded[0] == loaded[1]
    assert _native._is_whole(loaded[0])
    assert [file.name for file in loaded[0].parent.iterdir()] == [loaded[0].name]


def test_another_compiler_or_source_is_another_library(compiler, loaded, tmp_path, monkeypatch):
    load()
    compiler.write_text(compiler.read_text().replace("echo stand-in", "echo stand-in 2"))
    load()
    monkeypatch.setattr(_native, "_SOURCES", tmp_path / "csrc")
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "library.cpp").write_text("// changed")
    load()
    assert len(set(loaded)) == builds(compiler) == 3


@pytest.mark.parametrize("damage", [b"", b"\x7fELF", None])
def test_a_damaged_library_is_built_again(compiler, loaded, damage):
    load()
    path = loaded[0]
    path.write_bytes(path.read_bytes()[:-5000] if damage is None else damage)
    load()
    assert builds(compiler) == 2
    assert _native._is_whole(path)


def test_a_killed_build_leaves_the_next_run_fine(compiler, tmp_path):
    """The compiler of the first run is stopped half-way and its process killed."""
    whole = compiler.read_text()
    compiler.write_text(whole.replace("cp ", f"echo half > $2; echo > {tmp_path}/half; sleep 5 #"))
    killed = in_a_process(SPARSETORCH_NATIVE="require")
    deadline = time.monotonic() + 60
    while not (tmp_path / "half").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    killed.kill()
    killed.wait()
    compiler.write_text(whole)
    out = result_of(in_a_process(SPARSETORCH_NATIVE="require"))
    assert out.startswith("0 native")
    assert builds(compiler) == 2


def test_two_processes_may_build_at_once(compiler):
    slow = compiler.read_text().replace("cp ", "sleep 2\ncp ")
    compiler.write_text(slow)
    processes = [in_a_process(SPARSETORCH_NATIVE="require") for _ in range(2)]
    for process in processes:
        assert result_of(process).startswith("0 native")
    assert builds(compiler) == 2


def test_without_a_compiler_the_reference_runs_and_one_warning_says_why(compiler):
    out = result_of(in_a_process(SPARSETORCH_NATIVE="auto", CXX="/no/such/compiler"))
    assert out.startswith("1 reference (CXX=/no/such/compiler is not a command")
    assert "Install one (for example `apt install g++`)" in out


def test_off_means_the_reference_without_a_word(compiler, loaded):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load("off") == (None, "reference (SPARSETORCH_NATIVE=off)")
    assert not loaded
    assert builds(compiler) == 0


def test_require_says_what_is_missing(compiler, loaded, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX")
    with pytest.raises(RuntimeError, match=r"no C\+\+ compiler .* found. Install one"):
        load()


def test_require_shows_what_the_compiler_said(compiler, loaded):
    compiler.write_text(compiler.read_text().replace("cp ", "echo 'no C++20 here' >&2; exit 1 #"))
    with pytest.raises(
        RuntimeError, match=r"(?s)a compiler with C\+\+20 is needed.*no C\+\+20 here"
    ):
        load()
    assert builds(compiler) == 2  # with and without -march=native


def test_a_cache_that_cannot_be_written_is_named(compiler, loaded, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARSETORCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(RuntimeError, match="Set SPARSETORCH_CACHE to a writable folder"):
        load()


def test_a_shipped_library_comes_first(compiler, loaded, tmp_path, monkeypatch):
    shipped = tmp_path / "sparsetorch_native.so"
    shipped.touch()
    monkeypatch.setattr(_native, "_SHIPPED", shipped)
    load()
    assert loaded == [shipped]
    assert builds(compiler) == 0


def test_the_library_asks_nothing_of_pytorch_but_its_stable_abi(library, tmp_path):
    """No name from PyTorch's C++ namespaces is imported: another release can load this file."""
    if shutil.which("nm") is None:
        pytest.skip("nm, which comes with the compiler, is missing")
    (tmp_path / "library.so").write_bytes(library)
    command = ["nm", "-D", "--undefined-only", str(tmp_path / "library.so")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = [line.split()[-1] for line in lines]
    assert any(name.startswith("aoti_torch_") for name in names)
    assert not [name for name in names if re.match(r"_ZNK?(2at|3c10|5torch)", name)]


def test_an_unknown_mode_is_refused():
    with pytest.raises(ValueError, match="SPARSETORCH_NATIVE is 'maybe'; expected"):
        load("maybe")
