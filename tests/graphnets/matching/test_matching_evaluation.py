"""What `evaluate` says of a matcher: which tokens, which pairs, which stages."""

import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching import evaluation
from graphnets.matching import lightning as matching
from graphnets.matching.evaluation import evaluate, linked, stages
from graphnets.matching.features import PairFeatures
from graphnets.matching.lightning import PairMatcher
from graphnets.matching.logs import WEEK, Logs, Pages, week_slices
from graphnets.matching.metrics import average_precision
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.tasks import (
    TASKS,
    Decision,
    task_logs,
    task_pair_count,
    task_pairs,
    task_positives,
    task_vocabulary,
)
from graphnets.matching.vocabulary import vocabulary
from graphnets.ragged import Ragged

ALL = Decision(slope=1.0, offset=0.0, prior=0.1, partners=1.0, threshold=-9.0, shift=False)


def light_logs(users=20, weeks=8, visits=15):
    """Two devices of each user, which visit pages of that user's alone, never much in one week."""
    g = torch.Generator().manual_seed(0)
    pages = Pages(
        torch.arange(5 * users)[:, None].repeat(1, 2),
        Ragged.from_lengths(torch.ones(5 * users, dtype=torch.int64), torch.arange(5 * users)),
    )
    n = 2 * users
    device = torch.arange(n).repeat_interleave(weeks * visits)
    week = torch.arange(weeks).repeat_interleave(visits).repeat(n)
    page = 5 * (device // 2) + torch.randint(5, device.shape, generator=g)
    time = week * WEEK + torch.randint(WEEK, device.shape, generator=g)
    names, kinds = [str(d) for d in range(n)], torch.arange(n) % 2
    return Logs.from_visits(pages, device, page, time, names, torch.arange(n) // 2, kinds)


def matcher(decisions=TASKS, **options):
    torch.manual_seed(0)
    module = PairMatcher(levels=2, width=0, **options).eval()
    module.decisions = dict.fromkeys(decisions, ALL)
    return module


def test_devices_that_are_never_used_much_keep_their_pages():
    logs = light_logs()
    assert len(week_slices(logs, 20)) == 0
    found = evaluate(matcher(()), logs)
    assert found["A"]["average_precision"] == 1.0
    assert "note" in found["B"]


def test_tokens_of_a_task_are_those_of_its_own_logs():
    logs = drawn_logs()
    for task in ("B", "B1"):
        weeks = vocabulary(task_logs(logs, task, 10))
        assert torch.equal(task_vocabulary(logs, task, 10).here, weeks.here)
    # Whole logs: what two devices share, two weeks share.
    shared = vocabulary(logs)
    found = task_vocabulary(logs, "A")
    for kind in range(3):
        ids = shared.ids[(shared.kinds == kind) & (shared.here > 1)]
        assert bool((found.here[found.find(kind, ids)] > 1).all())


@pytest.mark.parametrize("task", TASKS)
def test_pairs_of_a_task_are_counted_without_all_pairs(task):
    logs = drawn_logs()
    pairs = task_pairs(logs, task)
    assert task_pair_count(logs, task) == len(pairs)
    true = pairs[same_user(logs.users, pairs)]
    assert torch.equal(task_positives(logs, task), true)


@pytest.fixture
def few(monkeypatch):
    """One neighbour a device and source, so that not all true pairs are candidates."""
    monkeypatch.setattr(evaluation, "candidates", first_neighbours)


def first_neighbours(logs, devices, task, k=1):
    everything = evaluation_candidates(logs, devices, task, k)
    return everything.select(torch.arange(len(everything)) % 2 == 0)


evaluation_candidates = evaluation.candidates


def test_candidates_alone_are_scored_where_asked(few):
    logs = drawn_logs()
    whole = evaluate(matcher(), logs, min_visits=10)
    some = evaluate(matcher(), logs, min_visits=10, scored="candidates")
    for task in TASKS:
        a, b = whole[task], some[task]
        assert (a["scored"], b["scored"]) == ("all", "candidates")
        assert b["pairs"] == a["candidates"]["pairs"] < a["pairs"]
        assert b["true_pairs"] == a["true_pairs"]
        assert 0 < a["candidates"]["candidate_recall"] < 1
        assert b["candidates"] == pytest.approx(a["candidates"])
        assert b["average_precision"] == pytest.approx(a["candidates"]["average_precision"])
        assert b["recall"] == pytest.approx(a["candidates"]["recall"])
        assert b["recall"] <= a["candidates"]["candidate_recall"]
        assert b["stages"] == a["stages"]
        assert b["users"] == a["users"]


def test_too_many_pairs_are_not_scored(monkeypatch):
    logs = drawn_logs()
    monkeypatch.setattr(evaluation, "ALL_PAIRS_UP_TO", 50)
    monkeypatch.setattr(evaluation, "task_pairs", None)
    found = evaluate(matcher(), logs, min_visits=10)
    assert [found[task]["scored"] for task in TASKS] == ["candidates"] * 3
    with pytest.raises(ValueError, match=r"scored: expected one of .*, got 'some'"):
        evaluate(matcher(), logs, scored="some")  # pyright: ignore[reportArgumentType]


def test_each_stage_leaves_a_share_of_the_one_before(few):
    found = evaluate(matcher(), drawn_logs(), min_visits=10)
    for task in TASKS:
        shares = list(found[task]["stages"].values())
        assert shares == sorted(shares, reverse=True)
        assert shares[1] == found[task]["candidates"]["candidate_recall"]
        assert shares[2] == found[task]["candidates"]["recall"]


def test_stages_are_a_chain_though_clusters_join_more():
    labels = torch.tensor([True, True, False, True, True])
    near = torch.tensor([True, True, True, False, True])
    called = torch.tensor([True, False, True, True, True])
    clusters = torch.tensor([[0, 0], [0, 0], [1, 1], [2, 2], [0, 1]])
    expected = {"true pairs": 1.0, "candidates": 0.75, "called true": 0.5, "one user": 0.25}
    assert stages(labels, near, called, clusters) == expected
    assert stages(labels, near, called, clusters, missed=4)["candidates"] == 0.375


def test_only_candidates_link_devices():
    pairs = all_pairs(4)  # 01 02 03 12 13 23
    weights = torch.tensor([2.0, 5.0, -1.0, -1.0, 0.5, 3.0])
    near = torch.tensor([True, False, True, True, False, True])
    assert linked(4, pairs, weights, near).tolist() == [0, 0, 1, 1]
    assert linked(4, pairs, -weights.abs(), near).tolist() == [0, 1, 2, 3]


def test_devices_of_one_person_become_one_user():
    logs = light_logs()
    module = matcher(())
    scores = evaluation.score_task(module, logs, "A", task_vocabulary(logs, "A"), "all").scores
    labels = same_user(logs.users, task_pairs(logs, "A"))
    module.decisions["A"] = Decision.fit(scores, labels, len(logs), shift=False)
    found = evaluate(module, logs)["A"]
    assert found["f1"] == 1.0
    assert found["users"]["clusters"] == found["users"]["true_users"] == 20
    assert found["users"]["pairs"]["f1"] == found["users"]["b_cubed"]["f1"] == 1.0
    assert found["stages"]["one user"] == 1.0


def test_the_linear_matcher_has_a_say(monkeypatch):
    monkeypatch.setattr(matching, "PAIRS_AT_ONCE", 50)  # several blocks
    logs, module = drawn_logs(), matcher((), linear=True)
    labels = same_user(logs.users, task_pairs(logs, "A"))
    features = PairFeatures(logs)(task_pairs(logs, "A"))
    for task in TASKS:
        module._linear(task).fit(features, labels)
    found = evaluate(module, logs, min_visits=10)["A"]["average_precision"]
    alone = evaluate(matcher(()), logs, min_visits=10)["A"]["average_precision"]
    known = task_vocabulary(logs, "A")
    network = matcher(()).scores(logs, task_pairs(logs, "A"), known)
    both = network + module._linear("A")(features).detach().float()
    assert alone == pytest.approx(average_precision(network, labels))
    assert found == pytest.approx(average_precision(both, labels)) != pytest.approx(alone)


def test_devices_of_unknown_people_are_no_strangers():
    logs = drawn_logs()
    users = torch.where(logs.users < 2, -1, logs.users)
    unknown = Logs(
        logs.pages, logs.page, logs.time, logs.names, users, logs.kinds, logs.periods, logs.sources
    )
    found = evaluate(matcher(), unknown, min_visits=10)["A"]
    assert found["devices"] == 18
    assert found["pairs"] == 6 * 6  # of twelve devices of known people, six of either kind
    assert found["true_pairs"] == 4 * 2
    assert found["users"]["true_users"] == 4


def test_logs_with_other_levels_are_refused():
    logs = drawn_logs()
    with pytest.raises(
        ValueError, match=r"levels: prefixes of these logs have 2 levels, .* takes 4"
    ):
        evaluate(PairMatcher(levels=4, width=0), logs)
