import torch
from small_logs import drawn_logs, two_devices

from graphnets.matching.graphs import device_graphs
from graphnets.matching.tokens import device_tokens, node_features
from graphnets.matching.vocabulary import steps_of, vocabulary

NAMES = {0: "name", 1: "page", 2: "word", 3: "step of names", 4: "step of pages"}


def test_tokens_of_pages_and_how_many_devices_have_them():
    known = vocabulary(two_devices())
    counted = {
        (NAMES[kind], i): devices
        for kind, i, devices in zip(known.kinds.tolist(), known.ids.tolist(), known.here.tolist())
        if kind < 3
    }
    assert counted == {
        ("name", 10): 2, ("name", 11): 1,
        ("page", 20): 2, ("page", 21): 2,
        ("word", 7): 2, ("word", 8): 2,
    }  # fmt: skip
    assert known.n_kinds == 5


def test_steps_lead_from_one_prefix_to_another():
    logs = two_devices()
    visits, steps = steps_of(logs, 1)
    assert visits.tolist() == [1, 2, 5]  # page 2 has no such prefix
    assert steps[0] == steps[2] != steps[1]  # a and b go from page 0 to 1; a goes back
    visits, steps = steps_of(logs, 0)
    assert visits.tolist() == [3]  # from name 10 to 11; to stay at 10 is no step
    known = vocabulary(logs)
    there = known.find(4, steps_of(logs, 1)[1])
    assert there.tolist() == [there[0], -1, there[0]]  # one device alone goes back
    assert known.here[there[0]] == 2


def test_frequencies_add_up_over_logs():
    one, other = two_devices(), drawn_logs()
    known = vocabulary(one, vocabulary(one).frequencies())
    assert torch.equal(known.devices, 2 * known.here)
    assert known.n_devices == 4
    new = vocabulary(other, vocabulary(one).frequencies())
    assert torch.equal(new.devices, new.here)  # nothing in common


def test_rare_tokens_weigh_more():
    known = vocabulary(drawn_logs())
    order = known.devices.argsort()
    assert (known.idf[order].diff() <= 0).all()
    two = known.idf[known.devices == 2]
    assert two.numel()
    torch.testing.assert_close(two, torch.ones_like(two), rtol=0.02, atol=0)


def test_entries_are_what_two_devices_have():
    logs = two_devices()
    known, graphs = vocabulary(logs), device_graphs(logs)
    found = device_tokens(logs, graphs, known)
    shared = (known.here > 1).nonzero()[:, 0].tolist()
    assert found.pattern.col.tolist() == [*shared, *shared]
    visits = (found.features[:, 2] * 3).expm1()
    by_token = dict(zip(found.pattern.col.tolist(), visits.tolist()))  # of device b, the second
    name = int(known.find(0, torch.tensor([10])))
    assert round(by_token[name]) == 2
    first = (found.pattern.row == 0) & (found.pattern.col == name)
    assert round(float(visits[first])) == 3  # a visits pages of name 10 three times
    behind = found.nodes.col[found.nodes.row == int(first.nonzero())]
    assert behind.tolist() == [0, 1]


def test_features_are_finite_and_of_the_right_width():
    logs = drawn_logs()
    known, graphs = vocabulary(logs), device_graphs(logs)
    tokens = device_tokens(logs, graphs, known)
    nodes = node_features(logs, graphs, known)
    assert tokens.features.shape == (tokens.pattern.nnz, 9 + known.n_kinds)
    assert nodes.shape == (len(graphs.nodes.values), 7 + known.n_kinds)
    assert bool(tokens.features.isfinite().all())
    assert bool(nodes.isfinite().all())
