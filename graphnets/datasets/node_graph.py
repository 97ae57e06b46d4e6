"""One graph whose nodes have classes, and which nodes train, validate and test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsetorch import CSRTensor


@dataclass(frozen=True, eq=False)
class NodeGraph:
    """A graph for node classification, with one split of its nodes or several.

    Attributes:
        adjacency: (n, n) float32, ones, symmetric, without self-loops.
        features: (n, m) float32, a CSRTensor where they are mostly zeros.
        labels: (n,) int64, from 0 to the number of classes less one.
        train, validation, test: (splits, n) bool; of a split no two share a node.
    """

    adjacency: CSRTensor
    features: CSRTensor | Tensor
    labels: Tensor
    train: Tensor
    validation: Tensor
    test: Tensor

    def __post_init__(self) -> None:
        """Refuse parts that do not fit, and nodes that serve twice."""
        n = len(self.labels)
        if self.adjacency.shape != (n, n) or self.features.shape[0] != n:
            raise ValueError(
                f"adjacency: expected ({n}, {n}) and features ({n}, m) for {n} labels, got "
                f"{tuple(self.adjacency.shape)} and {tuple(self.features.shape)}"
            )
        masks = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, mask in masks.items():
            if mask.dtype != torch.bool or mask.shape != (len(self.train), n):
                raise ValueError(
                    f"{name}: expected bool (splits, {n}), got {mask.dtype} {tuple(mask.shape)}"
                )
        if bool((torch.stack(list(masks.values())).sum(0) > 1).any()):
            raise ValueError("train, validation, test: a node is in two of them in one split")

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.labels.max()) + 1 if len(self.labels) else 0


def undirected(edges: Tensor, n: int) -> CSRTensor:
    """The adjacency matrix (n, n) of ones: each edge both ways, once, without self-loops.

    edges: (2, n_edges) int64, either way or both, repeated or not.

    Raises:
        ValueError: an index is out of range.
    """
    edges = edges[:, edges[0] != edges[1]]
    both = torch.cat([edges, edges.flip(0)], 1)
    return CSRTensor.from_edge_index(both, n_nodes=n).map(torch.ones_like)
