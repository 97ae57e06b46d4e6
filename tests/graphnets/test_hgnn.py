"""HGNN and its cross-attention are the formulas of their docstrings, node by node."""

import pytest
import torch

from graphnets.cross_attention import CrossAttention
from graphnets.hgnn import HGNN, HGNNLayer
from graphnets.two_level import TwoLevelGraph
from sparsetorch import CSRTensor, Pattern

WIDTH = 5
LISTS = [[2, 1], [], [0, 1, 2], [1]]  # what each node reads, in time
CHUNKS = [[0], [0, 1], [1], [1, 2]]  # the coarse nodes of each


def graph(order=None):
    """The graph of these lists, its nodes renumbered so that node k is order[k]."""
    order = list(range(4)) if order is None else order
    place = {node: k for k, node in enumerate(order)}
    edges = [
        (place[i], place[j], float(t)) for i, row in enumerate(LISTS) for t, j in enumerate(row)
    ]
    rows, cols, times = zip(*edges)
    A = CSRTensor.from_coo(torch.tensor(rows), torch.tensor(cols), torch.tensor(times), (4, 4))
    ties = [(place[i], c) for i, row in enumerate(CHUNKS) for c in row]
    row, col = (torch.tensor(side) for side in zip(*ties))
    cross = CSRTensor.from_coo(row, col, torch.ones(len(ties)), (4, 3)).pattern
    empty = Pattern(torch.zeros(4, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), (3, 3))
    return TwoLevelGraph.of_patterns(A.pattern, empty, cross, fine_edges=A.values[:, None])


def node_by_node(layer, x):
    cell = layer.read.cell
    read = []
    for i, row in enumerate(LISTS):
        state = x.new_zeros(1, WIDTH)
        for j in [*row, i]:
            state = cell(x[j : j + 1], state)
        read.append(state[0])
    x = (x + torch.stack(read)) / 2
    nodes = [[i for i, row in enumerate(CHUNKS) if c in row] for c in range(3)]
    y = torch.stack([layer.down(x[own]).mean(0) for own in nodes])
    out = []
    for i, row in enumerate(CHUNKS):
        scores = layer.key(y[row]) @ layer.query(x[i]) / layer.key.out_features**0.5
        far = scores.softmax(0) @ y[row]
        out.append(x[i] + layer.norm(torch.relu(layer.own(x[i]) + layer.up(far))))
    return torch.stack(out)


@pytest.fixture
def x():
    torch.manual_seed(0)
    return torch.randn(4, WIDTH, dtype=torch.float64)


def test_a_layer_is_its_formula(x):
    net = HGNN(WIDTH).double()
    layer = net.layers[0]
    assert isinstance(layer, HGNNLayer)
    torch.testing.assert_close(net(graph(), x), node_by_node(layer, x), rtol=1e-10, atol=1e-10)


def test_numbering_does_not_matter(x):
    net, order = HGNN(WIDTH, layers=2).double(), [2, 0, 3, 1]
    torch.testing.assert_close(net(graph(order), x[order]), net(graph(), x)[order])


def test_mixed_precision_is_a_rounding_away(x):
    net, x = HGNN(WIDTH, layers=2), x.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = net(graph(), x)
    torch.testing.assert_close(found.float(), net(graph(), x), rtol=0.05, atol=0.05)


def test_derivatives(x):
    net = HGNN(WIDTH).double()
    assert torch.autograd.gradcheck(lambda x: net(graph(), x), x.requires_grad_())


def test_edges_without_a_time_are_refused(x):
    plain = graph()
    plain = TwoLevelGraph.of_patterns(plain.fine, plain.coarse, plain.cross)
    with pytest.raises(ValueError, match="graph: expected fine_edges"):
        HGNN(WIDTH).double()(plain, x)


def test_cross_attention_is_its_formula():
    torch.manual_seed(0)
    head = CrossAttention(WIDTH, hidden=6).double()
    ptr = torch.tensor([0, 3, 4, 9])
    x = torch.randn(9, WIDTH, dtype=torch.float64)
    pairs = torch.tensor([[0, 1], [2, 0], [1, 2]])

    def explained(own, other):
        beta = torch.sigmoid(head.filter(own))
        a, b = (k / k.norm(dim=1, keepdim=True) for k in (head.key(own), head.key(other)))
        attended = (head.log_sharpness.exp() * a @ b.T).softmax(1) @ other
        return head.compare((beta * (attended - own)) ** 2).amax(0)

    expected = []
    for v, w in pairs.tolist():
        X, Y = x[ptr[v] : ptr[v + 1]], x[ptr[w] : ptr[w + 1]]
        a, b = explained(X, Y), explained(Y, X)
        expected.append((head.score(torch.cat([a, b])) + head.score(torch.cat([b, a]))) / 2)
    found = head(ptr, x, pairs)
    torch.testing.assert_close(found, torch.cat(expected), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(head(ptr, x, pairs.flip(1)), found, rtol=1e-10, atol=1e-10)
    inputs = x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: head(ptr, x, pairs), inputs)
