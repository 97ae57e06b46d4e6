import pytest
import torch

from graphnets.ordered_gru import OrderedGRUConv, by_length, ordered_neighbours
from graphnets.ragged import Ragged
from sparsetorch import CSRTensor

LISTS = [[2, 0], [], [1, 1, 3, 0, 2], [3]]


def ragged(lists):
    lengths = torch.tensor([len(row) for row in lists], dtype=torch.int64)
    values = torch.tensor([v for row in lists for v in row], dtype=torch.int64)
    return Ragged.from_lengths(lengths, values)


def node_by_node(layer, lists, x):
    """The definition: PyTorch's GRU over each node's neighbours alone."""
    gru = torch.nn.GRU(layer.cell.input_size, layer.cell.hidden_size).double()
    named = {f"{name}_l0": parameter for name, parameter in layer.cell.named_parameters()}
    rows = []
    for i, row in enumerate(lists):
        read = [*row, i] if layer.with_self else row
        if read:
            rows.append(torch.func.functional_call(gru, named, x[read])[1][0])
        else:
            rows.append(x.new_zeros(layer.cell.hidden_size))
    return torch.stack(rows)


@pytest.mark.parametrize("with_self", [False, True])
def test_it_is_the_gru_over_each_node_alone(with_self):
    torch.manual_seed(0)
    layer = OrderedGRUConv(3, 5, with_self=with_self).double()
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    found, expected = layer(ragged(LISTS), x), node_by_node(layer, LISTS, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(found)
    inputs = [x, *layer.parameters()]
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), inputs),
        torch.autograd.grad((expected * weight).sum(), inputs),
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_node_does_not_know_the_batch_that_it_is_in():
    torch.manual_seed(0)
    layer = OrderedGRUConv(3, 4).double()
    x = torch.randn(500, 3, dtype=torch.float64)
    alone = layer(ragged([[2, 0]]), x)
    hub = list(range(500))
    together = layer(ragged([hub, [2, 0], [], hub[:63]]), x)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-13, atol=1e-13)


def test_second_derivatives():
    torch.manual_seed(0)
    layer = OrderedGRUConv(2, 2).double()
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(ragged(LISTS), x), x)


def test_order_matters_and_numbering_does_not():
    torch.manual_seed(0)
    layer = OrderedGRUConv(3, 4).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    assert (layer(ragged([[0, 1]]), x) - layer(ragged([[1, 0]]), x)).abs().max() > 1e-3
    permutation = torch.tensor([3, 0, 2, 1])
    place = permutation.argsort()
    renumbered = ragged([[int(place[j]) for j in LISTS[i]] for i in permutation.tolist()])
    torch.testing.assert_close(
        layer(renumbered, x[permutation]), layer(ragged(LISTS), x)[permutation]
    )


def test_all_forms_of_neighbours_agree():
    torch.manual_seed(0)
    layer = OrderedGRUConv(2, 3)
    x = torch.randn(4, 2)
    lists = [[2, 0], [], [3, 1], [0, 1, 2]]
    edges = [(j, i) for i, row in enumerate(lists) for j in row]
    edge_index = torch.tensor(edges).T
    time = torch.arange(len(edges), dtype=torch.float32)
    A = CSRTensor.from_coo(edge_index[1], edge_index[0], time, (4, 4))
    expected = layer(ragged(lists), x)
    torch.testing.assert_close(layer(edge_index, x), expected)
    torch.testing.assert_close(layer(A, x), expected)


def test_no_neighbours_at_all():
    layer = OrderedGRUConv(2, 3)
    assert layer(ragged([[], []]), torch.randn(2, 2)).tolist() == [[0] * 3] * 2
    assert layer(ragged([]), torch.randn(0, 2)).shape == (0, 3)
    assert OrderedGRUConv(2, 3, with_self=True)(ragged([]), torch.randn(0, 2)).shape == (0, 3)


def test_steps_hold_what_is_left_to_read():
    order, steps = by_length(ragged(LISTS))
    assert order.tolist() == [2, 0, 3, 1]
    assert [steps[t].tolist() for t in range(5)] == [[1, 2, 3], [1, 0], [3], [0], [2]]


@pytest.mark.parametrize(
    ("neighbours", "message"),
    [
        (ragged([[0, 4]]), "rows of x from 0 to 3, got 0 to 4"),
        (torch.tensor([[0], [5]]), "row: expected 0 to 3"),
        (torch.tensor([0, 1]), r"shape \(2, edges\)"),
        (torch.tensor([[0.0], [1.0]]), "int64"),
    ],
)
def test_neighbours_that_do_not_exist_are_refused(neighbours, message):
    with pytest.raises(ValueError, match=message):
        ordered_neighbours(neighbours, 4)


def test_other_mistakes_are_named():
    layer = OrderedGRUConv(2, 3, with_self=True)
    with pytest.raises(ValueError, match=r"x: expected \(m, 2\), got \(4, 3\)"):
        layer(ragged(LISTS), torch.randn(4, 3))
    with pytest.raises(ValueError, match="neighbours: expected those of 4 nodes"):
        layer(ragged(LISTS[:2]), torch.randn(4, 2))
    with pytest.raises(TypeError, match=r"neighbours: .* got list"):
        layer([[0]], torch.randn(4, 2))  # pyright: ignore[reportArgumentType]


def test_times_that_have_no_order_are_refused():
    conv = OrderedGRUConv(3, 4)
    x, pattern = torch.randn(3, 3), torch.tensor([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]])
    matrix = CSRTensor.from_dense(pattern.double())
    late = 1_461_500_000 + torch.arange(6, dtype=torch.float64)
    conv(matrix.with_values(late), x)
    with pytest.raises(ValueError, match="float32 does not tell apart times"):
        conv(matrix.with_values(late.float()), x)
    with pytest.raises(ValueError, match="got NaN"):
        conv(matrix.with_values(late.where(late != late[3], torch.nan)), x)


def test_under_autocast_states_are_of_its_dtype():
    conv, x = OrderedGRUConv(3, 4, with_self=True), torch.randn(5, 3)
    edges = torch.tensor([[0, 1, 2, 3, 4, 1], [1, 1, 3, 0, 2, 4]])
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(edges, x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), conv(edges, x), atol=2e-2, rtol=0)
    found.float().sum().backward()
