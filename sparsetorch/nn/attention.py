"""Attention along the edges of a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsetorch.csr import CSRTensor
from sparsetorch.nn.edges import Graph, as_pattern
from sparsetorch.pattern import Pattern
from sparsetorch.products import sddmm


class GATConv(nn.Module):
    """Graph attention: each node averages its neighbours with weights that it learns to give.

    With h = x W^T, each head has

        e_ij = LeakyReLU(a_target . h_i + a_source . h_j),
        alpha_i = softmax of e_ij over the entries (i, j) of row i,
        y_i = sum_j alpha_ij h_j,

    P. Veličković, G. Cucurull, A. Casanova, A. Romero, P. Liò, Y. Bengio, ICLR 2018
    (arXiv:1710.10903), equations 1 to 6. The heads are one batch of matrices, values
    (heads, nnz), on one pattern; their softmax is `CSRTensor.softmax`.

    Equivalent to PyG's `GATConv(add_self_loops=False)`: to let a node attend to itself, give it
    `pattern.with_diagonal.pattern`. A node without entries gets the bias alone.

    Args:
        width_in: of the inputs.
        width_out: of each head's output.
        heads: number of heads.
        concat: whether to concatenate the heads (equation 5) or to average them (equation 6).
        negative_slope: of the LeakyReLU.
        dropout: probability to drop an attention weight while training.
        bias: whether to add a bias, (heads width_out,) or (width_out,).
        device, dtype: of the parameters.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        width_in: int,
        width_out: int,
        heads: int = 1,
        *,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.heads, self.concat, self.negative_slope = heads, concat, negative_slope
        options = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(heads * width_out, width_in, **options))
        self.target = nn.Parameter(torch.empty(heads, width_out, **options))
        self.source = nn.Parameter(torch.empty(heads, width_out, **options))
        width = heads * width_out if concat else width_out
        self.register_parameter(
            "bias", nn.Parameter(torch.empty(width, **options)) if bias else None
        )
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, by Glorot and Bengio's uniform rule; the bias starts at zero."""
        for parameter in (self.weight, self.target, self.source):
            nn.init.xavier_uniform_(parameter)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def attention(self, graph: Graph, x: Tensor) -> CSRTensor:
        """The attention weights, a batch (heads, n, n) of matrices whose rows sum to one."""
        pattern = as_pattern(graph, x)
        _check(pattern, x, self.weight.shape[1])
        return self._attention(pattern, self._projected(x))

    def forward(self, graph: Graph, x: Tensor) -> Tensor:
        """Pattern (n, n), entry (i, j) an edge from j to i; x (n, width_in) -> (n, width).

        graph: a Pattern; a CSRTensor, of which only the pattern counts; or PyG's edge_index
        (2, n_edges) without edges that occur twice.

        Raises:
            TypeError: another kind of graph.
            ValueError: x is not (n, width_in), or edges of nodes that it does not have, or twice.
        """
        pattern = as_pattern(graph, x)
        _check(pattern, x, self.weight.shape[1])
        h = self._projected(x)
        alpha = self._attention(pattern, h)
        y = alpha.with_values(self.dropout(alpha.values)).matmul(h)  # (heads, n, width_out)
        y = y.movedim(0, 1).flatten(1) if self.concat else y.mean(0)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _projected(self, x: Tensor) -> Tensor:
        """Features of each head, (heads, n, width_out)."""
        return torch.matmul(x, self.weight.mT).unflatten(-1, (self.heads, -1)).movedim(1, 0)

    def _attention(self, pattern: Pattern, h: Tensor) -> CSRTensor:
        to_target = torch.einsum("hnc,hc->hn", h, self.target)
        from_source = torch.einsum("hnc,hc->hn", h, self.source)
        # The sum at each edge as a product of two rows: its gradient is one of matrices, where that
        # of an `index_select` adds up entry by entry.
        left = torch.stack([to_target, torch.ones_like(to_target)], -1)
        right = torch.stack([torch.ones_like(from_source), from_source], -1)
        scores = sddmm(pattern, left, right).values
        scores = nn.functional.leaky_relu(scores, self.negative_slope)
        return CSRTensor(pattern, scores).softmax(-1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        width_in, width_out = self.weight.shape[1], self.target.shape[1]
        return f"{width_in}, {width_out}, heads={self.heads}, concat={self.concat}"


def _check(pattern: Pattern, x: Tensor, width_in: int) -> None:
    if pattern.shape[0] != pattern.shape[1] or x.shape != (pattern.shape[0], width_in):
        raise ValueError(
            f"x: expected (n, {width_in}) for an (n, n) pattern, got {tuple(x.shape)} for "
            f"{pattern.shape}"
        )
