"""numml (Nytko et al., arXiv:2212.05159) where it is installed; its column stays empty elsewhere.

It is not on the package index: clone https://github.com/nicknytko/numml and `pip install` it.
"""

import importlib
import importlib.util
from typing import Any

from torch import Tensor


def numml_matrix(values: Tensor, crow: Tensor, col: Tensor) -> Any:
    """A square matrix of numml's that holds these values themselves; None without numml."""
    if importlib.util.find_spec("numml") is None:
        return None
    numml = importlib.import_module("numml.sparse")
    n = crow.numel() - 1
    return numml.SparseCSRTensor((values, col.long(), crow.long()), shape=(n, n), clone=False)
