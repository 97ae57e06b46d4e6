"""The specification of the experts' products, in plain PyTorch: slow, obvious, any dtype.

Every expert is a network of two layers without biases, f_e(x) = down_e relu(up_e x)^2 (Primer's
activation: So et al., arXiv:2109.08668).

Shapes: T tokens, R rows (one for each pair of a token and an expert that it goes to), E experts,
D width, M width of an expert.
"""

import torch
from torch import Tensor

from sparsetorch_kernels.layout import Layout


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2, of any shape."""
    return torch.relu(x).square()


def grouped_mlp(x_RD: Tensor, ptr: Tensor, up_EMD: Tensor, down_EDM: Tensor) -> Tensor:
    """Rows ptr[e] to ptr[e + 1] through expert e: x (R, D), ptr (E + 1,) -> (R, D)."""
    rows = x_RD.split(ptr.diff().tolist())
    return torch.cat([expert(x, up, down) for x, up, down in zip(rows, up_EMD, down_EDM)])


def routed_mlp(
    layout: Layout, gate_R: Tensor, x_TD: Tensor, up_EMD: Tensor, down_EDM: Tensor
) -> Tensor:
    """y_t = sum over the experts e of token t of gate[e, t] f_e(x_t): x (T, D) -> (T, D).

    layout: the (E, T) matrix of the gates; gate (R,) its values. Half precision is added up in the
    dtype of the gates.
    """
    y_TD = torch.zeros_like(x_TD, dtype=torch.promote_types(x_TD.dtype, gate_R.dtype))
    sizes = layout.crow.diff().tolist()
    columns = zip(layout.col.split(sizes), gate_R.split(sizes), up_EMD, down_EDM)
    for token, gate, up, down in columns:
        y = gate[:, None] * expert(x_TD.index_select(0, token), up, down)
        y_TD = y_TD.index_add(0, token, y)
    return y_TD.to(x_TD.dtype)


def expert(x_RD: Tensor, up_MD: Tensor, down_DM: Tensor) -> Tensor:
    """One expert: down relu(up x)^2 of each row."""
    return squared_relu(x_RD @ up_MD.T) @ down_DM.T
