"""Every layer of `sparsetorch.nn`, with a call of it: what the tests of modules run down."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from random_matrices import random_csr, random_pattern
from torch import Tensor, nn

from sparsetorch import CSRTensor, Pattern, TypedCSR
from sparsetorch.nn import GATConv, GCNConv, RGCNConv, SparseLinear, TAGConv

N, IN, OUT = 7, 4, 3


class Layer(NamedTuple):
    """A layer and how it is called on a graph's matrix and features."""

    make: Callable[[], nn.Module]
    call: Callable[[Any, CSRTensor, Tensor], Tensor]


def on_matrix(layer: nn.Module, A: CSRTensor, x: Tensor) -> Tensor:
    return layer(A, x)


def on_pattern(layer: nn.Module, A: CSRTensor, x: Tensor) -> Tensor:
    return layer(A.pattern, x)


EDGE_TYPES = [("node", "to", "node"), ("node", "from", "node")]


def on_relations(layer: nn.Module, A: CSRTensor, x: Tensor) -> Tensor:
    """The edges are one relation, turned around they are another one."""
    return layer(TypedCSR(dict(zip(EDGE_TYPES, (A, A.T)))), {"node": x})["node"]


def weight_pattern() -> Pattern:
    return random_pattern(OUT, IN, 0.5, seed=11)


LAYERS = {
    "linear": Layer(lambda: SparseLinear(weight_pattern()), lambda layer, A, x: layer(x)),
    "linear without bias": Layer(
        lambda: SparseLinear(weight_pattern(), bias=False), lambda layer, A, x: layer(x)
    ),
    "gcn, narrower": Layer(lambda: GCNConv(IN, OUT), on_matrix),
    "gcn, wider": Layer(lambda: GCNConv(IN, IN + 1, bias=False), on_matrix),
    "tag": Layer(lambda: TAGConv(IN, OUT, hops=2), on_matrix),
    "tag, much narrower": Layer(lambda: TAGConv(IN, 1, hops=2), on_matrix),
    "tag without bias": Layer(lambda: TAGConv(IN, OUT, hops=1, bias=False), on_matrix),
    "gat": Layer(lambda: GATConv(IN, OUT, heads=2), on_pattern),
    "rgcn": Layer(lambda: RGCNConv(IN, OUT, EDGE_TYPES), on_relations),
    "rgcn of bases": Layer(lambda: RGCNConv(IN, IN + 1, EDGE_TYPES, n_bases=3), on_relations),
    "rgcn without root": Layer(
        lambda: RGCNConv(IN, OUT, EDGE_TYPES, root=False, bias=False), on_relations
    ),
    "gat, averaged": Layer(lambda: GATConv(IN, OUT, heads=2, concat=False), on_pattern),
}


def make(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return LAYERS[name].make().double()


def inputs(seed: int = 0) -> tuple[CSRTensor, Tensor]:
    """A graph's matrix, with an empty row, and features."""
    generator = torch.Generator().manual_seed(seed)
    A = random_csr(N, N, 0.3, seed=2)
    return A, torch.randn(N, IN, generator=generator, dtype=torch.float64, requires_grad=True)
