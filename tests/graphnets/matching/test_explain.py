from dataclasses import replace

import pytest
import torch
from matplotlib import pyplot as plt
from small_logs import drawn_logs, two_devices

from graphnets.cross_attend import cross_attend
from graphnets.cross_attention import CrossAttention
from graphnets.matching.explain import attended_pages, attention, kind_name, token_name, why_linked
from graphnets.matching.heads import cosines
from graphnets.matching.logs import HOUR, Logs, Pages
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.plot import plot_precision_recall, plot_stages, plot_timeline
from graphnets.matching.scoring import encode_devices
from graphnets.matching.vocabulary import vocabulary
from graphnets.ragged import Ragged


def encoded(logs, **options):
    torch.manual_seed(0)
    known = vocabulary(logs)
    return encode_devices(HGNNMatcher(2, **options).eval(), logs, known), known


def named(logs):
    """The pages of `two_devices`, with names."""
    object.__setattr__(logs.pages, "names", ("a.com/x", "a.com/y", "b.com"))
    return logs


def test_names_are_those_of_pages_and_of_both_ends_of_a_step():
    logs = named(two_devices())
    known = vocabulary(logs)
    names = {
        (kind_name(known, token), token_name(logs, known, token))
        for token in range(len(known.kinds))
    }
    assert ("address, level 0", "a.com") in names
    assert ("address, level 1", "a.com/y") in names
    assert ("step, level 1", "a.com/x → a.com/y") in names
    assert ("word", "a.com/x") in names


def test_shares_add_up_and_the_largest_come_first():
    logs = named(two_devices())
    devices, known = encoded(logs, width=0)
    found = why_linked(devices, (0, 1), logs, known, k=100)
    assert sum(item.share for item in found) == pytest.approx(1, abs=1e-5)
    assert [item.share for item in found] == sorted((i.share for i in found), reverse=True)
    assert len({item.name for item in found}) == len(found)
    assert all(item.devices == 2 for item in found)
    assert len(why_linked(devices, (0, 1), logs, known, k=2)) == 2


def test_devices_that_share_nothing_are_not_linked_by_anything():
    no_words = Ragged(torch.zeros(5, dtype=torch.int64), torch.arange(0))
    pages = Pages(torch.tensor([[10], [11], [12], [13]]), no_words)
    visits = [[0, 1], [2, 3], [1, 0, 2, 3]]  # of two devices, and of one like both
    device = torch.arange(3).repeat_interleave(torch.tensor([len(row) for row in visits]))
    page = torch.tensor([page for row in visits for page in row])
    logs = Logs.from_visits(pages, device, page, torch.arange(8) * HOUR, ["a", "b", "c"])
    known = vocabulary(logs)
    devices = encode_devices(HGNNMatcher(1, width=0).eval(), logs, known)
    assert float(cosines(devices, torch.tensor([[0, 1]]))[0].abs().max()) == 0
    assert why_linked(devices, (0, 1), logs, known) == []
    assert {item.name for item in why_linked(devices, (0, 2), logs, known)} == {"page 0", "page 1"}


def test_pages_without_names_have_numbers():
    logs = drawn_logs()
    devices, known = encoded(logs, width=0)
    unnamed = why_linked(devices, (0, 1), logs, known, k=3)
    assert len(unnamed) == 3
    assert all(item.name.startswith("page ") for item in unnamed)


def test_attention_is_what_the_head_does():
    devices, _ = encoded(drawn_logs(), width=8, heads=("cross",))
    drawn = torch.randn_like(devices.nodes.values)  # what is not trained differs little
    devices = replace(devices, nodes=devices.nodes.with_values(drawn))
    head = CrossAttention(8)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    found = attention(head, devices, (0, 3))
    x, y = devices.nodes[0], devices.nodes[3]
    q, k = (z @ head.key.weight.T for z in (x, y))
    cosine = (q @ k.T) / q.norm(dim=1)[:, None] / k.norm(dim=1)
    torch.testing.assert_close(found.weights, (head.log_sharpness.exp() * cosine).softmax(1))
    first, _, last = head.filter
    beta = 1 / (1 + torch.exp(-last(torch.tanh(first(x)))))
    torch.testing.assert_close(found.filter, beta[:, 0])
    seen = cross_attend(devices.nodes.ptr, head.keys(drawn), drawn, torch.tensor([[0, 3]]))
    torch.testing.assert_close(found.weights @ y, seen.first[0])


def test_attended_pages_are_named_the_most_attended_first():
    logs = named(two_devices())
    devices, _ = encoded(logs, width=8, heads=("cross",))
    head = CrossAttention(8)
    whole = attention(head, devices, (0, 1))
    found = attended_pages(head, devices, (0, 1), logs, k=100)
    counts = [item.weight * item.filter for item in found]
    assert counts == sorted(counts, reverse=True)
    assert sorted(item.page for item in found) == ["a.com/x", "a.com/y", "b.com"]
    of_pages = {item.page: item for item in found}
    for i, page in enumerate(("a.com/x", "a.com/y", "b.com")):
        item = of_pages[page]
        assert item.other == ("a.com/x", "a.com/y")[int(whole.weights[i].argmax())]
        assert item.weight == pytest.approx(float(whole.weights[i].max()))
        assert item.filter == pytest.approx(float(whole.filter[i]))
    assert found[:2] == attended_pages(head, devices, (0, 1), logs, k=2)
    with pytest.raises(ValueError, match="logs: expected those of"):
        attended_pages(head, devices, (0, 1), drawn_logs())


def test_matchers_without_the_head_are_refused():
    logs = drawn_logs()
    shared, known = encoded(logs, width=0)
    cross, _ = encoded(logs, width=8, heads=("cross",))
    with pytest.raises(ValueError, match='"shared" head'):
        why_linked(cross, (0, 1), logs, known)
    with pytest.raises(ValueError, match='"cross" head'):
        attention(CrossAttention(8), shared, (0, 1))


@pytest.mark.parametrize("pair", [(3, 3), (0, -1), (0, 18), (-1, 2)])
def test_pairs_that_are_none_are_refused(pair):
    logs = drawn_logs()
    shared, known = encoded(logs, width=0)
    cross, _ = encoded(logs, width=8, heads=("cross",))
    message = "pair: expected two different devices from 0 to 17, got"
    with pytest.raises(ValueError, match=message):
        why_linked(shared, pair, logs, known)
    with pytest.raises(ValueError, match=message):
        attention(CrossAttention(8), cross, pair)
    with pytest.raises(ValueError, match=message):
        plot_timeline(logs, pair, known)


def test_pictures(tmp_path):
    logs = named(two_devices())
    devices, known = encoded(logs, width=0)
    evidence = why_linked(devices, (0, 1), logs, known)
    timeline = plot_timeline(logs, (0, 1), known, evidence)
    drawn = [len(line.get_xdata()) for line in timeline.axes[0].lines]
    assert drawn[0] == 4  # all visits of device a, then those with each piece of evidence
    assert len(drawn) == 1 + len(evidence)
    scores, labels = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([True, False, True])
    curve = plot_precision_recall({"one": (scores, labels)}, missed=1)
    assert max(curve.axes[0].lines[0].get_xdata()) == pytest.approx(2 / 3)
    stages = plot_stages({"all": 1.0, "candidates": 0.7})
    assert [bar.get_width() for bar in stages.axes[0].patches] == [0.7, 1.0]
    for number, figure in enumerate((timeline, curve, stages)):
        figure.savefig(tmp_path / f"{number}.png")
        plt.close(figure)
