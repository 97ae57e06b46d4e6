import torch
from small_logs import drawn_logs, two_devices

from graphnets.assignment import by_gap
from graphnets.matching.graphs import device_graphs
from graphnets.matching.logs import HOUR


def test_pages_steps_and_chunks():
    found = device_graphs(two_devices())
    assert [found.nodes[d].tolist() for d in range(2)] == [[0, 1, 2], [0, 1]]
    assert found.visits.values.tolist() == [0, 1, 0, 2, 3, 4]
    fine = found.graph.fine
    steps = sorted(zip(fine.col.tolist(), fine.row.tolist(), found.graph.fine_edges[:, 0].tolist()))
    assert steps == [(0, 1, 1), (0, 2, 3), (1, 0, 2), (3, 4, 5)]  # from, to, the visit that made it
    cross = found.graph.cross
    assert cross.shape == (5, 2)  # one chunk of up to six visits each
    ties = sorted(zip(cross.row.tolist(), cross.col.tolist()))
    assert ties == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 1)]
    assert found.graph.cross_edges[:, 0].tolist() == [2, 1, 1, 1, 1]


def test_another_assignment_makes_other_chunks():
    found = device_graphs(two_devices(), by_gap(HOUR // 2))
    assert found.graph.cross.shape == (5, 6)  # each visit is a session of its own


def test_a_device_is_the_same_alone_and_among_others():
    logs = drawn_logs()
    whole, alone = device_graphs(logs), device_graphs(logs.select(torch.tensor([4])))
    a, b = int(whole.nodes.ptr[4]), int(whole.nodes.ptr[5])
    inside = (whole.graph.fine.row >= a) & (whole.graph.fine.row < b)
    assert whole.nodes[4].tolist() == alone.nodes[0].tolist()
    assert (whole.graph.fine.row[inside] - a).tolist() == alone.graph.fine.row.tolist()
    assert (whole.graph.fine.col[inside] - a).tolist() == alone.graph.fine.col.tolist()


def test_empty_logs_have_no_nodes():
    logs = two_devices()
    none = logs.select(torch.tensor([], dtype=torch.int64))
    found = device_graphs(none)
    assert found.graph.fine.shape == (0, 0)
    assert len(found.nodes) == 0
