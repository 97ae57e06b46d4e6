"""A layer of TGCE against its definition, node by node and with dense attention."""

import pytest
import torch
from test_ordered_gru import node_by_node

from graphnets.ragged import Ragged
from graphnets.tgce import POSITIONS, TGCELayer, sequence_graphs, sinusoids

WIDTH = 4


def layer_and_nodes(dtype):
    """A layer, graphs of four members, one of them empty, and their nodes."""
    torch.manual_seed(0)
    layer = TGCELayer(WIDTH)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))  # scores of both signs
    # Positions are counted modulo POSITIONS, which the last sequence goes beyond.
    lists = [[3, 1, 3, 1, 2], [5], [], [1] * POSITIONS + [2, 7, 4, 2]]
    values = torch.tensor([token for row in lists for token in row])
    graphs = sequence_graphs(Ragged.from_lengths(torch.tensor([len(row) for row in lists]), values))
    assert int(graphs.first.max()) > POSITIONS
    x = torch.randn(len(graphs.nodes.values), WIDTH, dtype=dtype, requires_grad=True)
    return layer.to(dtype), graphs, x


def plain(layer, graphs, x):
    """Both tiers and the readout, as in the docstring of `TGCELayer`."""
    if layer.training:
        mean, variance = x.mean(0), x.var(0, unbiased=False)
    else:
        mean, variance = layer.norm.running_mean, layer.norm.running_var
    h = (x - mean) / (variance + layer.norm.eps).sqrt() * layer.norm.weight + layer.norm.bias
    lists = [graphs.neighbours[i].tolist() for i in range(len(x))]
    read = node_by_node(layer.read, lists, h)
    h = (h @ layer.own.weight.T + layer.own.bias + read @ layer.near.weight.T).clamp(min=0)
    z = h @ layer.project.weight.T
    positions = sinusoids(POSITIONS, 8)[graphs.first % POSITIONS].to(z.dtype)
    ends = torch.cat([z, positions], 1)
    scores = ends @ layer.target.weight.T + (ends @ layer.source.weight.T).T
    scores = torch.where(scores > 0, scores, 0.2 * scores)
    allowed = torch.zeros(len(x), len(x), dtype=torch.bool)
    allowed[graphs.shortcuts.row.long(), graphs.shortcuts.col.long()] = True
    h = (scores.masked_fill(~allowed, -torch.inf).softmax(1) @ z).clamp(min=0)
    both = torch.cat([x, h], 1)
    gate = both @ layer.gate.weight.T + layer.gate.bias
    rows = [slice(a, b) for a, b in zip(graphs.nodes.ptr[:-1].tolist(), graphs.nodes.ptr[1:])]
    pooled = torch.stack([(gate[row].softmax(0) * both[row]).sum(0) for row in rows])
    return pooled @ layer.out.weight.T + layer.out.bias


@pytest.mark.parametrize("training", [True, False])
def test_values_and_derivatives_are_those_of_the_definition(training):
    layer, graphs, x = layer_and_nodes(torch.float64)
    layer.train(training)
    if not training:
        layer.norm.load_state_dict(
            layer.norm.state_dict()
            | {"running_mean": torch.randn(WIDTH), "running_var": torch.rand(WIDTH) + 0.5}
        )
    found, expected = layer(graphs, x), plain(layer, graphs, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    named = {"x": x, **dict(layer.named_parameters())}
    gradients = [
        torch.autograd.grad((result * weight).sum(), list(named.values()))
        for result in (found, expected)
    ]
    for name, ours, theirs in zip(named, *gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12, msg=name)
        if name != "gate.bias":  # it is added to all scores of a softmax
            assert bool(ours.abs().sum() > 1e-6), name


def test_single_precision_is_as_near_as_its_rounding():
    exact, graphs, x = layer_and_nodes(torch.float64)
    single, _, _ = layer_and_nodes(torch.float32)
    expected = plain(exact, graphs, x)
    found = single(graphs, x.float())
    error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert float(error) < 1e-6


def test_positions_are_sines_and_cosines():
    found = sinusoids(POSITIONS, 8)
    place, rate = torch.arange(POSITIONS).double()[:, None], 10 ** -torch.arange(4).double()
    expected = torch.cat([(place * rate).sin(), (place * rate).cos()], 1).float()
    torch.testing.assert_close(found, expected)
