"""The wheel holds the five packages whole, and nothing else that would be installed."""

import re
import tomllib
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.builders.wheel import WheelBuilder

import sparsetorch

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {  # package: the folder that holds it
    "sparsetorch_kernels": ROOT / "kernels",
    "sparsetorch": ROOT,
    "graphnets": ROOT,
    "ddm": ROOT,
    "nemotron_blocks": ROOT,
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with ZipFile(path) as archive:
        yield archive


def files_of(package: str) -> set[str]:
    """The package's files in the repository, named as in the wheel."""
    root = SOURCES[package]
    return {
        path.relative_to(root).as_posix()
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    }


def test_the_wheel_installs_the_five_packages_and_nothing_else(wheel):
    top = {name.partition("/")[0] for name in wheel.namelist()}
    metadata = {name for name in top if name.endswith(".dist-info")}
    assert top - metadata == set(SOURCES)  # no top-level kernels, tests, examples or benchmarks
    assert len(metadata) == 1


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert sparsetorch.__version__ == project["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1].strip('"') == project["version"]


def test_kernels_is_a_source_root_and_no_package():
    # `kernels` is the import name of another distribution, which an __init__.py here would shadow.
    assert not (ROOT / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize("package", SOURCES)
def test_a_package_is_in_the_wheel_whole(wheel, package):
    shipped = {name for name in wheel.namelist() if name.startswith(f"{package}/")}
    assert shipped == files_of(package)
    assert f"{package}/py.typed" in shipped


def test_the_wheel_carries_the_sources_of_the_native_kernels(wheel):
    csrc = "sparsetorch_kernels/csrc/"
    assert any(name.startswith(csrc) and name.endswith(".cpp") for name in wheel.namelist())


def test_the_wheel_serves_every_python_and_says_so(wheel):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = message_from_string(wheel.read(name).decode())
    assert Path(wheel.filename).name.endswith("-py3-none-any.whl")
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"ddm", "train", "test", "lint"} <= set(metadata.get_all("Provides-Extra", []))
