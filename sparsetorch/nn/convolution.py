"""Graph convolutions: polynomials of a sparse matrix applied to node features."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.nn.edges import Graph, as_matrix
from sparsetorch.nn.propagation import propagate


def gcn_normalize(A: CSRTensor) -> CSRTensor:
    """`D^-1/2 (A + I) D^-1/2` with the degrees `D = diag(row sums of A + I)`; differentiable in A.

    A: (*batch, n, n), entry (i, j) the weight of the edge from j to i, as
    `CSRTensor.from_edge_index` makes it. The result is stored on A's entries and the diagonal, a
    pattern that is found once and kept, so that new values cost no search. A node of degree zero
    (its edges cancel the one on the diagonal) gets a zero row and column, one of negative
    degree NaN.

    T. N. Kipf, M. Welling, ICLR 2017 (arXiv:1609.02907), equation 2. Equivalent to PyG's `gcn_norm`
    on a graph without self-loops; of an existing one PyG keeps the weight, to which I is added
    here.

    Raises:
        ValueError: a matrix that is not square.
    """
    n_rows, n_cols = A.pattern.shape
    if n_rows != n_cols:
        raise ValueError(f"A: expected a square matrix, got shape {tuple(A.shape)}")
    looped = A.add_diagonal(A.values.new_ones(n_rows))
    degrees = looped.sum(-1)
    roots = torch.where(degrees == 0, 1.0, degrees).rsqrt() * (degrees != 0)
    return looped.scale_rows(roots).scale_cols(roots)


class GCNConv(nn.Module):
    """Graph convolution `A X W^T + b` (T. N. Kipf, M. Welling, ICLR 2017, equation 2).

    `weight` (width_out, width_in) starts by Glorot and Bengio's uniform rule, `bias` (width_out,)
    at zero, as in the paper. Equivalent to PyG's `GCNConv(normalize=False)`: normalise the matrix
    once, `gcn_normalize(A)`, instead of in every call.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        width_in: int,
        width_out: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width_out, width_in, device=device, dtype=dtype))
        self.register_parameter(
            "bias", nn.Parameter(self.weight.new_empty(width_out)) if bias else None
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weight anew."""
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, A: Graph, x: Tensor | CSRTensor) -> Tensor:
        """A (*batch, m, n), x (*batch, n, width_in) -> (*batch, m, width_out).

        A may also be a Pattern or PyG's edge_index (2, n_edges), each edge of weight one. x may be
        sparse, such as a bag of words. Propagated are whichever are narrower, inputs or outputs.

        Raises:
            TypeError: another kind of A, or dtypes that differ.
            ValueError: sizes that differ, or edges of nodes that there are not.
        """
        A = as_matrix(A, x)
        width_out, width_in = self.weight.shape
        if isinstance(x, Tensor) and width_in < width_out:
            y = torch.matmul(propagate(A, x), self.weight.mT)
        elif isinstance(x, Tensor):
            y = propagate(A, torch.matmul(x, self.weight.mT))
        else:
            y = propagate(A, propagate(x, self.weight.mT))
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        width_out, width_in = self.weight.shape
        return f"{width_in}, {width_out}, bias={self.bias is not None}"


class TAGConv(nn.Module):
    """Topology-adaptive convolution `sum_k A^k x W_k^T + b` for k = 0 .. hops.

    J. Du, S. Zhang, G. Wu, J. M. F. Moura, S. Kar, arXiv:1710.10370, equation 2, without the degree
    normalisation: scale A before (PyG's `TAGConv(normalize=False)`). `linear.weight` is
    (width_out, (hops + 1) width_in), the W_k side by side.

    Raises:
        ValueError: less than one hop.
    """

    def __init__(
        self,
        width_in: int,
        width_out: int,
        hops: int = 3,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.hops = check_count("hops", hops, "hop")
        self.linear = nn.Linear((self.hops + 1) * width_in, width_out, bias, device, dtype)

    def forward(self, A: Graph, x: Tensor) -> Tensor:
        """A (*batch, n, n), x (*batch, n, width_in) -> (*batch, n, width_out).

        A may also be a Pattern or PyG's edge_index (2, n_edges), each edge of weight one.
        Propagated are whichever are narrower, inputs or outputs.

        Raises:
            TypeError: another kind of A, or dtypes that differ.
            ValueError: sizes that differ, or edges of nodes that there are not.
        """
        A = as_matrix(A, x)
        if self.linear.in_features <= (self.hops + 1) * self.linear.out_features:
            return self.mix(self.powers(A, x))
        # Horner's rule.
        first, *weights = reversed(self.linear.weight.mT.chunk(self.hops + 1))
        y = torch.matmul(x, first)
        for weight in weights:
            y = propagate(A, y) + torch.matmul(x, weight)
        return y if self.linear.bias is None else y + self.linear.bias.to(y.dtype)

    def powers(self, A: CSRTensor | Tensor, x: Tensor) -> Iterator[Tensor]:
        """`A^k x` for k = 0 .. hops, each like x (*batch, n, width_in)."""
        yield x
        for _ in range(self.hops):
            x = propagate(A, x)
            yield x

    def mix(self, powers: Iterable[Tensor]) -> Tensor:
        """`sum_k x_k W_k^T + b` of what `powers` gives, or of some rows of each."""
        # Concatenated they would take up to three times as long.
        powers, weights = iter(powers), iter(self.linear.weight.chunk(self.hops + 1, dim=1))
        y = linear(next(powers), next(weights), self.linear.bias)
        for x, weight in zip(powers, weights, strict=True):
            flat = x.ndim == y.ndim == 2
            y = torch.addmm(y, x, weight.mT) if flat else y + torch.matmul(x, weight.mT)
        return y
