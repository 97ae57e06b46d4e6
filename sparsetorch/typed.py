"""TypedCSR: a graph with several kinds of nodes and edges, as one matrix for each kind of edge."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree

from sparsetorch.csr import CSRTensor
from sparsetorch.tensor_like import Movable

EdgeType = tuple[str, str, str]  # (source, relation, target)


class TypedCSR(Movable):
    """The matrices of edges from one type of nodes to another, by (source, relation, target).

    matrices: each (*batch, n_target, n_source), of one dtype: entry (i, j) is an edge from node j
    of the source type to node i of the target type, as `CSRTensor.from_edge_index` makes it.
    n_nodes: the number of nodes of each type; those of types with edges may be left out.

    Together they are one matrix of blocks: `A @ {type: X}` adds up what the relations bring to each
    type, differentiably, and `A.T` turns all edges around. A pytree, as CSRTensor is.

    Raises:
        ValueError: a key is not three names, sizes, devices or batches do not fit each other.
        TypeError: something else than CSRTensors, or dtypes that differ.
    """

    matrices: dict[EdgeType, CSRTensor]
    n_nodes: dict[str, int]

    def __init__(
        self, matrices: Mapping[EdgeType, CSRTensor], n_nodes: Mapping[str, int] | None = None
    ):
        self.matrices = dict(matrices)
        self.n_nodes = dict(n_nodes or {})
        first: CSRTensor | None = None
        for edge_type, matrix in self.matrices.items():
            _check_edge_type(edge_type)
            if not isinstance(matrix, CSRTensor):
                raise TypeError(f"{edge_type}: expected a CSRTensor, got {type(matrix).__name__}")
            first = matrix if first is None else first
            _check_alike(edge_type, matrix, first)
            for node_type, size in zip(_ends(edge_type), matrix.pattern.shape):
                known = self.n_nodes.setdefault(node_type, size)
                if known != size:
                    raise ValueError(
                        f"{edge_type}: expected {known} nodes of type {node_type!r}, as n_nodes or "
                        f"another relation has, got a matrix of shape {matrix.pattern.shape} for "
                        "(targets, sources)"
                    )

    @classmethod
    def from_edge_index_dict(
        cls,
        edge_index_dict: Mapping[EdgeType, Tensor],
        n_nodes: Mapping[str, int],
        edge_weight_dict: Mapping[EdgeType, Tensor] | None = None,
    ) -> TypedCSR:
        """From the edges of PyG's `HeteroData`: `data.edge_index_dict`.

        Each (2, n_edges), sources above targets. n_nodes: of every type,
        `{t: data[t].num_nodes for t in data.node_types}`. edge_weight_dict: (*batch, n_edges) for
        some of them or all, differentiably; ones for the others. Parallel edges are summed.

        Raises:
            ValueError: a type without a number of nodes, weights for edges that there are not, or
                what `CSRTensor.from_edge_index` raises.
        """
        weights = dict(edge_weight_dict or {})
        strangers = [edge_type for edge_type in weights if edge_type not in edge_index_dict]
        if strangers:
            raise ValueError(f"edge_weight_dict: {strangers[0]} is not in edge_index_dict")
        given = next(iter(weights.values()), None)
        matrices = {}
        for edge_type, edge_index in edge_index_dict.items():
            _check_edge_type(edge_type)
            missing = [t for t in _ends(edge_type) if t not in n_nodes]
            if missing:
                raise ValueError(f"n_nodes: expected the number of nodes of type {missing[0]!r}")
            weight = weights.get(edge_type)
            if weight is None and given is not None:
                weight = given.new_ones(edge_index.shape[-1])
            target, source = (n_nodes[t] for t in _ends(edge_type))
            matrices[edge_type] = CSRTensor.from_edge_index(edge_index, weight, (source, target))
        return cls(matrices, n_nodes)

    def to_edge_index_dict(self) -> tuple[dict[EdgeType, Tensor], dict[EdgeType, Tensor]]:
        """PyG's edges, (2, nnz) int64 each, sources above targets, and their weights."""
        edges = {edge_type: matrix.to_edge_index() for edge_type, matrix in self.items()}
        return {t: e for t, (e, _) in edges.items()}, {t: w for t, (_, w) in edges.items()}

    def __getitem__(self, edge_type: EdgeType) -> CSRTensor:
        return self.matrices[edge_type]

    def __contains__(self, edge_type: object) -> bool:
        return edge_type in self.matrices

    def __iter__(self) -> Iterator[EdgeType]:
        return iter(self.matrices)

    def __len__(self) -> int:
        return len(self.matrices)

    def items(self) -> ItemsView[EdgeType, CSRTensor]:
        """Pairs of a kind of edges and its matrix."""
        return self.matrices.items()

    @property
    def edge_types(self) -> list[EdgeType]:
        """The kinds of edges, in the order in which they were given."""
        return list(self.matrices)

    @property
    def T(self) -> TypedCSR:
        """All edges turned around: (target, relation, source) to the transposed matrix."""
        turned = {(t, relation, s): A.T for (s, relation, t), A in self.matrices.items()}
        return TypedCSR(turned, self.n_nodes)

    def map_matrices(self, function: Callable[[CSRTensor], CSRTensor]) -> TypedCSR:
        """The function of each matrix, such as `lambda A: A.map(torch.relu)`; sizes must stay."""
        return TypedCSR({t: function(A) for t, A in self.matrices.items()}, self.n_nodes)

    def to(self, *args: Any, **kwargs: Any) -> TypedCSR:
        """Another dtype or device, with the arguments of `torch.Tensor.to`."""
        return self.map_matrices(lambda A: A.to(*args, **kwargs))

    def detach(self) -> TypedCSR:
        """The same matrices, cut from the graph of their values."""
        return self.map_matrices(lambda A: A.detach())

    def requires_grad_(self, requires_grad: bool = True) -> TypedCSR:
        """Ask for gradients of all values, in place."""
        for matrix in self.matrices.values():
            matrix.requires_grad_(requires_grad)
        return self

    def with_values(self, values: Mapping[EdgeType, Tensor]) -> TypedCSR:
        """Other values, (*batch, nnz) for each kind of edge, on the same patterns.

        Raises:
            ValueError: kinds that differ, or what `CSRTensor` raises.
        """
        if set(values) != set(self.matrices):
            raise ValueError(f"values: expected those of {self.edge_types}, got {list(values)}")
        return TypedCSR(
            {t: A.with_values(values[t]) for t, A in self.matrices.items()}, self.n_nodes
        )

    def matmul(self, x: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`y_t = sum over (s, r, t) of A_r x_s`, for each type t that is the target of some edges.

        x: (n_source,) or (*batch, n_source, k), for each type that is the source of some.

        Raises:
            ValueError: a source has no features, or sizes or devices differ.
            TypeError: dtypes differ.
        """
        y: dict[str, Tensor] = {}
        for edge_type, matrix in self.matrices.items():
            source, _, target = edge_type
            if source not in x:
                raise ValueError(
                    f"x: expected features of type {source!r}, the source of {edge_type}"
                )
            message = matrix.matmul(x[source])
            y[target] = y[target] + message if target in y else message
        return y

    __matmul__ = matmul

    def __repr__(self) -> str:
        kinds = ", ".join(f"{edge_type}: nnz={A.nnz}" for edge_type, A in self.matrices.items())
        return f"TypedCSR({{{kinds}}}, n_nodes={self.n_nodes})"


def _ends(edge_type: EdgeType) -> tuple[str, str]:
    """The types of rows and columns."""
    return edge_type[2], edge_type[0]


def _check_edge_type(edge_type: Any) -> None:
    named = isinstance(edge_type, tuple) and all(isinstance(name, str) for name in edge_type)
    if not named or len(edge_type) != 3:
        raise ValueError(f"expected keys (source, relation, target) of names, got {edge_type!r}")


def _check_alike(edge_type: EdgeType, matrix: CSRTensor, first: CSRTensor) -> None:
    if matrix.dtype != first.dtype:
        raise TypeError(
            f"{edge_type}: expected {first.dtype} like the first relation, got {matrix.dtype}; "
            "convert one with .to(dtype)"
        )
    if matrix.device != first.device:
        raise ValueError(
            f"{edge_type}: expected on {first.device} like the first relation, got "
            f"{matrix.device}; move one with .to(device)"
        )


def _unflatten(matrices: Any, context: Any) -> TypedCSR:
    # Transformations put placeholders in the place of values: nothing can be checked here.
    edge_types, n_nodes = context
    self = object.__new__(TypedCSR)
    self.matrices, self.n_nodes = dict(zip(edge_types, matrices)), dict(n_nodes)
    return self


pytree.register_pytree_node(
    TypedCSR,
    lambda A: (list(A.matrices.values()), (tuple(A.matrices), tuple(A.n_nodes.items()))),
    _unflatten,
    serialized_type_name="sparsetorch.TypedCSR",
)
