"""Two-level graphs: fine nodes, coarse nodes, and the edges within and between the levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from sparsetorch import CSRTensor, Pattern, block_diag
from sparsetorch.incidence import incidence
from sparsetorch_kernels import Layout, spmm


@dataclass(frozen=True, eq=False)
class TwoLevelGraph:
    """A fine graph, a coarse graph, and the pattern that ties each fine node to coarse ones.

    Attributes:
        fine: (n, n) pattern; entry (i, j) is an edge from j to i.
        coarse: (S, S) pattern.
        cross: (n, S) pattern; read by rows it is the way up to fine nodes, by columns down.
        fine_nodes, coarse_nodes: (n, *) and (S, *) node features.
        fine_edges, coarse_edges, cross_edges: (nnz, *) edge features, in the patterns' order.
    """

    fine: Pattern
    coarse: Pattern
    cross: Pattern
    fine_nodes: Tensor
    coarse_nodes: Tensor
    fine_edges: Tensor
    coarse_edges: Tensor
    cross_edges: Tensor

    def __post_init__(self) -> None:
        """Refuse features that do not fit the patterns."""
        n, n_coarse = self.cross.shape
        expected = {
            "fine_nodes": n,
            "coarse_nodes": n_coarse,
            "fine_edges": self.fine.nnz,
            "coarse_edges": self.coarse.nnz,
            "cross_edges": self.cross.nnz,
        }
        if self.fine.shape != (n, n) or self.coarse.shape != (n_coarse, n_coarse):
            raise ValueError(
                f"patterns do not fit: cross is {self.cross.shape}, fine is {self.fine.shape}, "
                f"coarse is {self.coarse.shape}; expected (n, S), (n, n), (S, S)"
            )
        for name, rows in expected.items():
            shape = getattr(self, name).shape
            if len(shape) != 2 or shape[0] != rows:
                raise ValueError(f"{name}: expected ({rows}, features), got {tuple(shape)}")

    @classmethod
    def of_patterns(
        cls, fine: Pattern, coarse: Pattern, cross: Pattern, **features: Tensor
    ) -> Self:
        """A graph with the features that are given, by attribute's name, and none for the rest."""
        rows = {
            "fine_nodes": cross.shape[0],
            "coarse_nodes": cross.shape[1],
            "fine_edges": fine.nnz,
            "coarse_edges": coarse.nnz,
            "cross_edges": cross.nnz,
        }
        none = {name: torch.zeros(n, 0, device=cross.device) for name, n in rows.items()}
        return cls(fine, coarse, cross, **none | features)

    @classmethod
    def batch(cls, graphs: Sequence[Self]) -> Self:
        """Many graphs as one: nodes and edges come graph after graph, no edge leads to another.

        Raises:
            ValueError: there is none; numbers of features or devices differ.
            TypeError: dtypes of features differ.
        """
        if not graphs:
            raise ValueError("graphs: expected at least one")
        found: dict[str, Any] = {}
        for name in ("fine", "coarse", "cross"):
            patterns = [getattr(graph, name) for graph in graphs]
            ones = [CSRTensor(p, torch.ones(p.nnz, device=p.device)) for p in patterns]
            found[name] = block_diag(ones).pattern
        for name in ("fine_nodes", "coarse_nodes", "fine_edges", "coarse_edges", "cross_edges"):
            features = [getattr(graph, name) for graph in graphs]
            widths, dtypes = ({x.shape[1] for x in features}, {x.dtype for x in features})
            if len(widths) > 1:
                raise ValueError(f"{name}: expected one number of features, got {sorted(widths)}")
            if len(dtypes) > 1:
                raise TypeError(f"{name}: expected one dtype, got {sorted(map(str, dtypes))}")
            found[name] = torch.cat(features)
        return cls(**found)

    @cached_property
    def to_fine(self) -> Incidence:
        """Incidence of fine nodes and cross edges, for `mean_edges`."""
        return _averaging(self.cross.layout)

    @cached_property
    def to_coarse(self) -> Incidence:
        """Incidence of coarse nodes and cross edges, for `mean_edges`."""
        return _averaging(self.cross.layout.T)

    def to(self, device: torch.device | str) -> Self:
        """This graph on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


class Incidence(NamedTuple):
    """The matrix that averages the messages on the edges of each row: see `mean_edges`."""

    layout: Layout
    weights: Tensor  # (nnz,) float64, one over the length of the row


def _averaging(layout: Layout) -> Incidence:
    lengths = layout.crow.diff().long()
    weights = torch.repeat_interleave(1.0 / lengths.clamp(min=1).double(), lengths)
    return Incidence(incidence(layout), weights)


def mean_edges(incidence: Incidence, messages: Tensor) -> Tensor:
    """Mean over the edges of each row: messages (nnz, k) -> (n_rows, k); empty rows give 0.

    A product with the incidence matrix: a deterministic sum (no atomics) with every derivative.
    """
    return spmm(incidence.layout, incidence.weights.to(messages.dtype), messages)
