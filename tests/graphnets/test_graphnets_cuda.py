"""Graph networks on a GPU, against the CPU; skipped where there is none."""

import copy

import pytest
import torch
from test_cross_attend import PAIRS, problem
from test_hgnn import LISTS, WIDTH, graph
from test_mggnn import network as mggnn
from test_mggnn import random_graph
from test_published_networks import network as published
from test_published_networks import published_graph
from test_tgce import sequences

from graphnets.cross_attend import cross_attend, cross_attend_reference
from graphnets.cross_attention import CrossAttention
from graphnets.graph_batch import GraphBatch
from graphnets.hgnn import HGNN
from graphnets.ordered_gru import OrderedGRUConv
from graphnets.ragged import Ragged
from graphnets.tgce import TGCE, sequence_graphs
from sparsetorch import CSRTensor

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: graph networks are NOT tested on one"
)


def moved(value, device):
    """An argument, or a list of some, on a device."""
    return [part.to(device) for part in value] if isinstance(value, list) else value.to(device)


def same(net, *arguments, call=None):
    """A network gives what it gives on the CPU: results, and gradients of all weights."""
    found = []
    for device in ("cpu", "cuda"):
        there = copy.deepcopy(net).to(device)
        given = [moved(argument, device) for argument in arguments]
        results = call(there, *given) if call else there(*given)
        results = results if isinstance(results, tuple) else (results,)
        generator = torch.Generator().manual_seed(0)
        total = sum(
            (y * torch.randn(y.shape, generator=generator, dtype=y.dtype).to(device)).sum()
            for y in results
        )
        assert isinstance(total, torch.Tensor)
        total.backward()
        gradients = {name: p.grad for name, p in there.named_parameters() if p.grad is not None}
        found.append({f"result {k}": y.detach() for k, y in enumerate(results)} | gradients)
    assert list(found[0]) == list(found[1])
    for name, want in found[0].items():
        torch.testing.assert_close(found[1][name].cpu(), want, rtol=1e-9, atol=1e-10, msg=name)


def normal(*shape):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_mggnn():
    same(mggnn(), random_graph())


@pytest.mark.parametrize("name", ["mggnn", "graph_unet"])
def test_published_networks(name):
    same(published(name), published_graph(), torch.arange(9), torch.arange(9).flip(0))


def test_ordered_gru():
    torch.manual_seed(0)
    lists = Ragged.from_lengths(
        torch.tensor([len(row) for row in LISTS]), torch.tensor([v for row in LISTS for v in row])
    )
    for with_self in (False, True):
        same(OrderedGRUConv(3, 5, with_self=with_self).double(), lists, normal(4, 3))


def test_hgnn():
    torch.manual_seed(0)
    same(HGNN(WIDTH, layers=2).double(), graph(), normal(4, WIDTH))


def test_cross_attention():
    torch.manual_seed(0)
    ptr, pairs = torch.tensor([0, 3, 4, 9]), torch.tensor([[0, 1], [2, 0], [1, 2]])
    same(CrossAttention(WIDTH, hidden=6).double(), ptr, normal(9, WIDTH), pairs)
    same(CrossAttention(WIDTH, hidden=6).double(), ptr, normal(9, WIDTH), pairs[:0])


def test_attention_of_pairs_has_the_derivatives_of_the_loop():
    ptr, keys, features = problem()
    want = cross_attend_reference(ptr, keys, features, PAIRS)
    found = cross_attend(ptr.cuda(), keys.cuda(), features.cuda(), PAIRS.cuda())
    got = found.first.values, found.second.values
    weights = [torch.randn_like(y) for y in want]
    expected = torch.autograd.grad(want, (keys, features), weights)
    gradients = torch.autograd.grad(got, (keys, features), [w.cuda() for w in weights])
    for a, b in zip((*got, *gradients), (*want, *expected)):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-11, atol=1e-12)


def test_tgce():
    torch.manual_seed(0)
    graphs = [sequence_graphs(sequences()) for _ in range(2)]
    xs = [normal(6, 4)[graph.nodes.values] for graph in graphs]
    pairs = torch.tensor([[0, 1], [3, 0]])

    def scores(net, graphs, xs, pairs):
        return net.score(net(graphs, xs), pairs)

    same(TGCE(width=4, levels=2).double().eval(), graphs, xs, pairs, call=scores)


def test_batches_of_graphs():
    A = CSRTensor.from_dense(torch.block_diag(*(normal(k, k) for k in (3, 1, 4))))
    nodes = Ragged(torch.tensor([0, 3, 4, 8]), normal(8, 2))
    here = GraphBatch(A, nodes, torch.arange(3))
    there = GraphBatch(A.to("cuda"), nodes.to("cuda"), torch.arange(3).cuda())
    chosen = torch.tensor([2, 0])
    expected, found = here.select(chosen), there.select(chosen.cuda())
    assert torch.equal(found.adjacency.to_dense().cpu(), expected.adjacency.to_dense())
    assert torch.equal(found.nodes.values.cpu(), expected.nodes.values)
