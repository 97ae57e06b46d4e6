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
    """gmsh; a test that wants it is skipped where it cannot load, and fails in CI."""
    try:
        return load_gmsh()
    except GmshUnavailableError as error:
        if os.environ.get("CI"):
            pytest.fail(f"continuous integration must have gmsh: {error}")
        pytest.skip(str(error))
