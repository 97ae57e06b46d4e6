"""What several test files share."""

import os

# Where tests run in a process for each core, threads of one would only wait for another's; programs
# that they start see it, too. Before torch is imported, which reads it then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from ddm.mesh import GmshUnavailableError, load_gmsh


@pytest.fixture(scope="session")
def gmsh():
    """gmsh, for a test whose other processes want it; see `pytest_runtest_call`."""
    return load_gmsh()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """See `pytest_runtest_call`."""
    return (yield from _skipped_without_gmsh())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test that needs gmsh is skipped where it cannot load, and fails in CI."""
    return (yield from _skipped_without_gmsh())


def _skipped_without_gmsh():
    try:
        return (yield)
    except GmshUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"continuous integration must have gmsh: {error}")
        pytest.skip(str(error))
