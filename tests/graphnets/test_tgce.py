import pytest
import torch

from graphnets.ragged import Ragged
from graphnets.tgce import TGCE, attention_pool, sequence_graphs


def sequences():
    lists = [[3, 1, 3, 1, 2], [5], [], [1, 1]]
    values = [v for row in lists for v in row]
    return Ragged.from_lengths(torch.tensor([len(row) for row in lists]), torch.tensor(values))


def test_graphs_of_sequences():
    found = sequence_graphs(sequences(), walks=0)
    assert [found.nodes[i].tolist() for i in range(4)] == [[1, 2, 3], [5], [], [1]]
    assert found.first.tolist() == [1, 4, 0, 0, 0]
    # Node 0 (token 1) occurred after token 3, twice; each time it reads that, then itself.
    assert found.neighbours[0].tolist() == [2, 0, 2, 0]
    assert found.neighbours[1].tolist() == [0, 1]
    assert found.neighbours[2].tolist() == [2, 0, 2]
    assert found.neighbours[3].tolist() == [3]
    assert found.neighbours[4].tolist() == [4, 4, 4]  # itself, what came before (itself), itself
    attended = torch.zeros(5, 5)
    attended[found.shortcuts.row.long(), found.shortcuts.col.long()] = 1
    assert attended.nonzero().tolist() == [
        [0, 0],
        [0, 2],
        [1, 0],
        [1, 1],
        [2, 0],
        [2, 2],
        [3, 3],
        [4, 4],
    ]


def test_walks_lead_from_their_start_to_what_they_come_by():
    chain = Ragged(torch.tensor([0, 5]), torch.arange(5))
    found = sequence_graphs(chain, walks=1, depth=10)
    attended = torch.zeros(5, 5)
    attended[found.shortcuts.row.long(), found.shortcuts.col.long()] = 1
    assert torch.equal(attended, torch.ones(5, 5).tril())  # each node sees all before it


@pytest.fixture
def model():
    torch.manual_seed(0)
    return TGCE(width=4, levels=2).double().eval()


def encoded(model, rows):
    graphs = [sequence_graphs(rows) for _ in range(2)]
    table = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return model(graphs, [table[graph.nodes.values] for graph in graphs])


def test_a_member_is_the_same_alone_and_among_others(model):
    together = encoded(model, sequences())
    alone = encoded(model, sequences().select(torch.tensor([0]))[0])
    torch.testing.assert_close(together[:1], alone, rtol=1e-12, atol=1e-12)


def test_scores_do_not_depend_on_the_order_of_a_pair(model):
    members, pairs = encoded(model, sequences()), torch.tensor([[0, 1], [3, 0]])
    assert torch.equal(model.score(members, pairs), model.score(members, pairs.flip(1)))


def test_pooling_is_a_softmax_over_the_rows_of_a_member():
    torch.manual_seed(0)
    gate, x = torch.nn.Linear(3, 1), torch.randn(5, 3)
    rows = Ragged(torch.tensor([0, 2, 2, 5]), torch.arange(5))
    expected = torch.stack(
        [
            (gate(x[:2])[:, 0].softmax(0)[:, None] * x[:2]).sum(0),
            torch.zeros(3),
            (gate(x[2:])[:, 0].softmax(0)[:, None] * x[2:]).sum(0),
        ]
    )
    torch.testing.assert_close(attention_pool(rows, x, gate), expected)


def test_mixed_precision_is_a_rounding_away(model):
    model = model.float()
    table = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    graphs = [sequence_graphs(sequences()) for _ in range(2)]
    nodes = [table[graph.nodes.values] for graph in graphs]
    expected = model(graphs, nodes)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(graphs, nodes)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


def test_depths_that_are_missing_are_named(model):
    graph = sequence_graphs(sequences())
    with pytest.raises(ValueError, match="graphs: expected 2 depths, got 1"):
        model([graph], [torch.zeros(5, 4, dtype=torch.float64)])
