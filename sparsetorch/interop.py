"""To and from the sparse matrices of other libraries: torch.sparse, PyG, NetworkX, CuPy.

None of them is imported before one of its objects is asked for. Values of torch.sparse tensors stay
attached to autograd where PyTorch itself keeps them attached.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sparsetorch import algebra, build
from sparsetorch.algebra import Sparse
from sparsetorch.pattern import Pattern

if TYPE_CHECKING:
    from sparsetorch.csr import CSRTensor

LAYOUTS = (torch.sparse_csr, torch.sparse_csc, torch.sparse_coo)


def from_torch(tensor: Tensor) -> Sparse:
    """From a torch.sparse tensor, see `CSRTensor.from_torch`."""
    if not isinstance(tensor, Tensor) or tensor.layout not in LAYOUTS:
        what = tensor.layout if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(
            f"tensor: expected layout torch.sparse_csr, sparse_csc or sparse_coo, got {what}"
        )
    if tensor.ndim != 2 or tensor.dense_dim():
        raise ValueError(
            f"tensor: expected one matrix of numbers, got shape {tuple(tensor.shape)} with "
            f"{tensor.dense_dim()} dense dimensions"
        )
    shape = (tensor.shape[0], tensor.shape[1])
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()  # which also is what keeps the graph of the values
        row, col = tensor.indices()
        return build.from_coo(row, col, tensor.values(), shape)
    if tensor.layout == torch.sparse_csc:
        turned = Pattern(tensor.ccol_indices(), tensor.row_indices(), (shape[1], shape[0]))
        order = turned.layout.t_perm
        assert order is not None
        return Sparse(turned.T, tensor.values().index_select(0, order))
    pattern = Pattern(tensor.crow_indices(), tensor.col_indices(), shape)
    return Sparse(pattern, tensor.values())


def to_torch(A: Sparse, layout: torch.layout) -> Tensor:
    """To a torch.sparse tensor, see `CSRTensor.to_torch`."""
    pattern, values = A
    if layout == torch.sparse_csr:
        crow, col = pattern.crow, pattern.col
        batch = values.shape[:-1]
        if batch:  # PyTorch stores the indices of each matrix of a batch
            crow, col = crow.expand(*batch, -1), col.expand(*batch, -1)
        return torch.sparse_csr_tensor(crow, col, values, (*batch, *pattern.shape))
    if layout == torch.sparse_coo:
        if values.ndim != 1:
            raise ValueError(
                f"to_torch: expected one matrix for the COO layout, got a batch of shape "
                f"{tuple(values.shape[:-1])}"
            )
        indices = torch.stack([pattern.row.long(), pattern.col.long()])
        return torch.sparse_coo_tensor(indices, values, pattern.shape, is_coalesced=True)
    raise ValueError(f"layout: expected torch.sparse_csr or torch.sparse_coo, got {layout}")


def from_edge_index(
    edge_index: Tensor, edge_weight: Tensor | None, n_nodes: int | tuple[int, int] | None
) -> Sparse:
    """Adjacency matrix of PyG's edges, see `CSRTensor.from_edge_index`."""
    if not isinstance(edge_index, Tensor) or edge_index.ndim != 2 or edge_index.shape[0] != 2:
        shape = getattr(edge_index, "shape", type(edge_index).__name__)
        raise ValueError(f"edge_index: expected shape (2, n_edges), got {shape}")
    source, target = edge_index[0].contiguous(), edge_index[1].contiguous()
    if n_nodes is None:
        size = int(edge_index.max()) + 1 if edge_index.numel() else 0
        shape = (size, size)
    elif isinstance(n_nodes, tuple | list) and len(n_nodes) == 2:
        shape = (n_nodes[1], n_nodes[0])
    elif isinstance(n_nodes, int | np.integer):
        shape = (int(n_nodes), int(n_nodes))
    else:
        raise ValueError(f"n_nodes: expected a number, or (sources, targets), got {n_nodes!r}")
    if edge_weight is None:
        edge_weight = torch.ones(source.numel(), device=source.device)
    return build.from_coo(target, source, edge_weight, shape)


def to_edge_index(A: Sparse) -> tuple[Tensor, Tensor]:
    """PyG's edges (2, nnz) and weights (*batch, nnz), see `CSRTensor.to_edge_index`."""
    return torch.stack([A.pattern.col.long(), A.pattern.row.long()]), A.values


def from_sparse_tensor(tensor: Any) -> Sparse:
    """From torch_sparse's SparseTensor, see `CSRTensor.from_sparse_tensor`."""
    if not (hasattr(tensor, "csr") and hasattr(tensor, "sparse_sizes")):
        raise TypeError(
            f"tensor: expected a torch_sparse.SparseTensor, got {type(tensor).__name__}"
        )
    crow, col, values = tensor.csr()
    n_rows, n_cols = tensor.sparse_sizes()
    if values is None:
        values = torch.ones(col.numel(), device=col.device)
    return build.from_compressed(crow, col, values, (n_rows, n_cols))  # may hold an entry twice


def from_networkx(graph: Any, weight: str, dtype: torch.dtype | None) -> Sparse:
    """Adjacency matrix of a NetworkX graph, see `CSRTensor.from_networkx`."""
    networkx = _networkx()
    if not hasattr(graph, "edges"):
        raise TypeError(f"graph: expected a NetworkX graph, got {type(graph).__name__}")
    dtype = dtype or torch.get_default_dtype()
    numbers = np.complex128 if dtype.is_complex else np.float64
    with warnings.catch_warnings():
        # NumPy refuses Python's complex numbers, but drops the imaginary parts of its own.
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        try:
            matrix = networkx.to_scipy_sparse_array(
                graph, weight=weight, dtype=numbers, format="csr"
            )
        except (TypeError, ValueError, np.exceptions.ComplexWarning) as error:
            raise TypeError(
                f"weight: the values of {weight!r} do not fit {dtype}: {error}; complex ones need "
                "dtype=torch.complex64 or torch.complex128"
            ) from error
    return build.from_scipy(matrix, dtype)


def to_networkx(A: CSRTensor, create_using: Any) -> Any:
    """A NetworkX graph with the entries as weights, see `CSRTensor.to_networkx`."""
    networkx = _networkx()
    n_rows, n_cols = A.pattern.shape
    if n_rows != n_cols:
        raise ValueError(f"to_networkx: expected a square matrix, got shape {A.pattern.shape}")
    kind = networkx.DiGraph if create_using is None else create_using
    return networkx.from_scipy_sparse_array(A.to_scipy(), create_using=kind)


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise ImportError("NetworkX is not installed: pip install 'sparsetorch[graph]'") from error
    return networkx


def from_cupy(matrix: Any) -> Sparse:
    """From a cupyx.scipy.sparse matrix, see `CSRTensor.from_cupy`."""
    if not all(hasattr(matrix, name) for name in ("tocsr", "format", "shape")):
        raise TypeError(
            f"matrix: expected a cupyx.scipy.sparse matrix, got {type(matrix).__name__}"
        )
    shape = (matrix.shape[0], matrix.shape[1])
    if matrix.format == "coo":  # CuPy's kernels would trust its indices
        row, col, values = map(torch.from_dlpack, (matrix.row, matrix.col, matrix.data))
        return build.from_coo(row, col, values, shape)
    if matrix.format == "csc":
        crow, col, values = _compressed(matrix)
        return algebra.transpose(build.from_compressed(crow, col, values, shape[::-1]))
    csr = matrix if matrix.format == "csr" else matrix.tocsr()
    return build.from_compressed(*_compressed(csr), shape)


def _compressed(matrix: Any) -> tuple[Tensor, Tensor, Tensor]:
    """indptr, indices and data, in the matrix's own memory."""
    crow, col, values = map(torch.from_dlpack, (matrix.indptr, matrix.indices, matrix.data))
    return crow, col, values


def to_cupy(A: CSRTensor) -> Any:
    """A cupyx.scipy.sparse.csr_matrix that shares memory with A, see `CSRTensor.to_cupy`."""
    try:
        import cupy  # pyright: ignore[reportMissingImports]
        import cupyx.scipy.sparse as cupy_sparse  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("CuPy is not installed: pip install cupy-cuda13x") from error
    if A.device.type != "cuda":
        raise ValueError(f"to_cupy: expected a matrix on CUDA, got {A.device}; use A.to('cuda')")
    arrays = (A.values.detach(), A.pattern.col, A.pattern.crow)
    return cupy_sparse.csr_matrix(tuple(map(cupy.from_dlpack, arrays)), shape=A.pattern.shape)
