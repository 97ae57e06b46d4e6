"""Graph convolutions over several kinds of edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sparsetorch.checks import check_count
from sparsetorch.csr import CSRTensor
from sparsetorch.nn.propagation import propagate
from sparsetorch.typed import EdgeType, TypedCSR


def rgcn_normalize(A: TypedCSR) -> TypedCSR:
    """`D_r^-1 A_r` for each relation r, D_r the row sums: means over a node's neighbours.

    Differentiable in the values. With weights of one, D_r counts neighbours, the constants c_(i,r)
    of Schlichtkrull et al.'s equation 2. A node that no edge of a relation enters, or whose weights
    cancel, gets zeros from it.
    """
    return A.map_matrices(_means)


def _means(A: CSRTensor) -> CSRTensor:
    sums = A.sum(-1)
    return A.scale_rows(torch.where(sums == 0, 1.0, sums).reciprocal() * (sums != 0))


class RGCNConv(nn.Module):
    """Relational graph convolution, `y_t = x_t W_0^T + b + sum over (s, r, t) of A_r x_s W_r^T`.

    M. Schlichtkrull, T. N. Kipf, P. Bloem, R. van den Berg, I. Titov, M. Welling, ESWC 2018
    (arXiv:1703.06103), equation 2 without its nonlinearity; `rgcn_normalize` divides by the
    constants. edge_types: the relations, (source, relation, target), each with its own W_r.
    n_bases: W_r are sums of that many matrices that all share, with coefficients of their own
    (equation 3); None for matrices that share nothing. Equivalent to PyG's `RGCNConv` on nodes of
    one type, with `rgcn_normalize` to its `aggr="mean"`, without to "add".

    `bases` (n_bases, width_out, width_in), or one for each relation, and `root`
    (width_out, width_in) start by Glorot and Bengio's uniform rule, `coefficients`
    (n_relations, n_bases) too; `bias` (width_out,) at zero. Relations are numbered in the order of
    edge_types.

    Raises:
        ValueError: no edge types, one that occurs twice, or less than one basis.
    """

    root: nn.Parameter | None
    bias: nn.Parameter | None
    coefficients: nn.Parameter | None

    def __init__(
        self,
        width_in: int,
        width_out: int,
        edge_types: Sequence[EdgeType],
        n_bases: int | None = None,
        root: bool = True,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.edge_types = [tuple(edge_type) for edge_type in edge_types]
        if not self.edge_types or len(set(self.edge_types)) < len(self.edge_types):
            raise ValueError(f"edge_types: expected different ones, got {self.edge_types}")
        if n_bases is not None:
            n_bases = check_count("n_bases", n_bases, "basis")
        n_relations = len(self.edge_types)
        shape = (n_bases or n_relations, width_out, width_in)
        self.bases = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        new = self.bases.new_empty
        self.coefficients = nn.Parameter(new(n_relations, n_bases)) if n_bases else None
        self.root = nn.Parameter(new(width_out, width_in)) if root else None
        self.bias = nn.Parameter(new(width_out)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        for matrix in (*self.bases, self.coefficients, self.root):
            if matrix is not None:
                nn.init.xavier_uniform_(matrix)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    @property
    def weights(self) -> Tensor:
        """The W_r, (n_relations, width_out, width_in)."""
        if self.coefficients is None:
            return self.bases
        return torch.einsum("rb,boi->roi", self.coefficients, self.bases)

    def forward(
        self, A: TypedCSR | Mapping[EdgeType, Tensor], x: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """x: (*batch, n, width_in) for each type of node -> (*batch, n, width_out) for each.

        A may also be PyG's edge_index_dict, each edge of weight one; it is converted in each call.

        Where there is no root, only types that are the target of some edges have a result. A may
        lack some of the layer's relations. Propagated are whichever are narrower, inputs or
        outputs.

        Raises:
            ValueError: a relation that the layer does not know, a type without features, or sizes
                that differ.
        """
        A = A if isinstance(A, TypedCSR) else _of_edges(A, x)
        y = {}
        if self.root is not None:
            y = {
                node_type: torch.matmul(features, self.root.mT) for node_type, features in x.items()
            }
        weights = self.weights
        narrower = weights.shape[2] < weights.shape[1]
        for edge_type, matrix in A.matrices.items():
            source, _, target = edge_type
            if edge_type not in self.edge_types:
                raise ValueError(
                    f"A: {edge_type} is not one of the layer's relations, {self.edge_types}"
                )
            if source not in x:
                raise ValueError(
                    f"x: expected features of type {source!r}, the source of {edge_type}"
                )
            weight = weights[self.edge_types.index(edge_type)].mT
            if narrower:
                message = torch.matmul(propagate(matrix, x[source]), weight)
            else:
                message = propagate(matrix, torch.matmul(x[source], weight))
            y[target] = y[target] + message if target in y else message
        if self.bias is None:
            return y
        return {
            node_type: features + self.bias.to(features.dtype) for node_type, features in y.items()
        }

    def extra_repr(self) -> str:
        """What `print` shows."""
        n_bases, width_out, width_in = self.bases.shape
        bases = "" if self.coefficients is None else f", n_bases={n_bases}"
        root, bias = self.root is not None, self.bias is not None
        return f"{width_in}, {width_out}, {self.edge_types}{bases}, root={root}, bias={bias}"


def _of_edges(edges: Mapping[EdgeType, Tensor], x: Mapping[str, Tensor]) -> TypedCSR:
    if not isinstance(edges, Mapping):
        raise TypeError(f"A: expected a TypedCSR or an edge_index_dict, got {type(edges).__name__}")
    n_nodes = {node_type: features.shape[-2] for node_type, features in x.items()}
    ones = {}
    for edge_type, edge_index in edges.items():
        for node_type in edge_type[::2]:
            if node_type not in x:
                raise ValueError(
                    f"x: expected features of type {node_type!r}, which edges {edge_type} have"
                )
        if not isinstance(edge_index, Tensor):
            raise TypeError(f"A: expected tensors (2, n_edges), got {edge_index!r}")
        features = x[edge_type[0]]
        ones[edge_type] = features.new_ones(edge_index.shape[-1])
    return TypedCSR.from_edge_index_dict(edges, n_nodes, ones)
