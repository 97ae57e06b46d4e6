"""What is missing is said with the line that installs it."""

import sys

import numpy as np
import pytest
from small_problems import laplacian

from ddm.learned import InterfaceNet
from ddm.mesh import load_mesh
from ddm.partition import partition


@pytest.mark.parametrize(
    ("module", "call"),
    [
        ("pymetis", lambda path: partition(laplacian(4), 2)),
        ("pyamg.graph", lambda path: partition(laplacian(4), 2, method="lloyd")),
        ("meshio", load_mesh),
        ("safetensors", InterfaceNet.load),
    ],
)
def test_a_missing_package(module, call, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(np.zeros(3).tobytes())
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf"{module} is not installed: pip install 'sparsetorch\[ddm\]'"
    ):
        call(path)
