"""What several test files share."""

import os

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
