from dataclasses import replace

import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.devices import Devices, matches
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.pairs import all_pairs
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.tgce_matcher import TGCEMatcher
from graphnets.matching.vectors import token_vectors
from graphnets.matching.vocabulary import vocabulary
from graphnets.ragged import Ragged

LOGS = drawn_logs()
KNOWN = vocabulary(LOGS)
VECTORS = token_vectors(LOGS, KNOWN, 8)
PAIRS = all_pairs(len(LOGS))
MATCHERS = {
    "shared": lambda: HGNNMatcher(2, 0, 0, heads=("shared",)),
    "network, shared": lambda: HGNNMatcher(2, 0, 8, heads=("shared",)),
    "cross": lambda: HGNNMatcher(2, 8, 8, heads=("cross",)),
    "pooled": lambda: HGNNMatcher(2, 8, 8, heads=("pooled",)),
    "all": lambda: HGNNMatcher(2, 8, 8, heads=("shared", "cross", "pooled")),
    "tgce": lambda: TGCEMatcher(8, 2),
}


@pytest.fixture(params=MATCHERS)
def matcher(request):
    torch.manual_seed(0)
    made = MATCHERS[request.param]()
    with torch.no_grad():
        for parameter in made.parameters():  # also those that start at zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def vectors_of(matcher):
    needs = isinstance(matcher, TGCEMatcher) or matcher.vectors
    return VECTORS if needs else None


def test_blocks_and_batches_do_not_change_scores(matcher):
    vectors = vectors_of(matcher)
    whole = encode_devices(matcher, LOGS, KNOWN, vectors)
    one_by_one = encode_devices(matcher, LOGS, KNOWN, vectors, visits=1)
    expected = score_pairs(matcher, whole, PAIRS)
    found = score_pairs(matcher, one_by_one, PAIRS, block=7)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_scores_are_the_same_for_either_order(matcher):
    devices = encode_devices(matcher, LOGS, KNOWN, vectors_of(matcher))
    there, back = matcher.score(devices, PAIRS), matcher.score(devices, PAIRS.flip(1))
    torch.testing.assert_close(there, back, rtol=1e-4, atol=1e-5)


def test_numbering_of_devices_does_not_matter(matcher):
    order = torch.randperm(len(LOGS), generator=torch.Generator().manual_seed(1))
    vectors = vectors_of(matcher)
    devices = encode_devices(matcher, LOGS, KNOWN, vectors)
    renumbered = encode_devices(matcher, LOGS.select(order), KNOWN, vectors)
    expected = score_pairs(matcher, devices, order[PAIRS])
    torch.testing.assert_close(
        score_pairs(matcher, renumbered, PAIRS), expected, rtol=1e-4, atol=1e-5
    )


def test_every_parameter_learns(matcher):
    matcher.train()
    devices = matcher(LOGS, KNOWN, vectors_of(matcher))
    matcher.score(devices, PAIRS).sum().backward()
    still = [
        name
        for name, parameter in matcher.named_parameters()
        if parameter.grad is None or not bool(parameter.grad.abs().sum() > 0)
    ]
    # A bias before BatchNorm, and one that is added to all scores of a softmax, change nothing.
    assert all(name.endswith("bias") for name in still), still


def test_matches_are_the_tokens_of_both():
    rows = [[1, 4, 6], [], [4, 5, 6, 9], [1]]
    tokens = Ragged.from_lengths(
        torch.tensor([len(row) for row in rows]), torch.tensor([t for row in rows for t in row])
    )
    pairs = torch.tensor([[0, 2], [2, 0], [0, 1], [0, 3], [2, 2]])
    found = matches(tokens, pairs)
    for k, (i, j) in enumerate(pairs.tolist()):
        both = sorted(set(rows[i]) & set(rows[j]))
        assert tokens.values[found.first[k]].tolist() == both
        assert tokens.values[found.second[k]].tolist() == both
        assert bool((tokens.row[found.first[k]] == i).all())
        assert bool((tokens.row[found.second[k]] == j).all())


def test_blocks_of_devices_are_put_together():
    torch.manual_seed(0)
    matcher = MATCHERS["all"]().eval()
    whole = encode_devices(matcher, LOGS, KNOWN, VECTORS)
    parts = [whole.select(torch.arange(5)), whole.select(torch.arange(5, len(LOGS)))]
    again = Devices.cat(parts)
    assert torch.equal(again.nodes.values, whole.nodes.values)
    assert torch.equal(again.tokens.ptr, whole.tokens.ptr)
    assert torch.equal(again.weights, whole.weights)


def with_last(visits):
    """The drawn logs, of whose last device only so many visits are left."""
    kept = int(LOGS.page.ptr[-2]) + visits
    ptr = LOGS.page.ptr.clone()
    ptr[-1] = kept
    page = Ragged(ptr, LOGS.page.values[:kept])
    return replace(LOGS, page=page, time=LOGS.time[:kept])


def test_a_device_of_one_visit_is_scored_and_one_of_none_is_named(matcher):
    vectors = vectors_of(matcher)
    devices = encode_devices(matcher, with_last(1), KNOWN, vectors)
    assert devices.visits[-1] == 1
    scores = score_pairs(matcher, devices, PAIRS)
    others = score_pairs(matcher, encode_devices(matcher, LOGS, KNOWN, vectors), PAIRS)
    same = (len(LOGS) - 1 > PAIRS).all(1)
    assert bool(scores.isfinite().all())
    torch.testing.assert_close(scores[same], others[same], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="device 'd17' has no visit; leave it out"):
        encode_devices(matcher, with_last(0), KNOWN, vectors)


def test_no_devices_are_named(matcher):
    none = LOGS.select(torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="logs: expected at least one device, got none"):
        encode_devices(matcher, none, KNOWN, vectors_of(matcher))


def test_vectors_that_do_not_fit_are_named(matcher):
    if vectors_of(matcher) is None:
        with pytest.raises(ValueError, match="vectors: this matcher takes none, got some"):
            encode_devices(matcher, LOGS, KNOWN, VECTORS)
        return
    with pytest.raises(ValueError, match=r"vectors: this matcher takes those of .* got None"):
        encode_devices(matcher, LOGS, KNOWN)
    for wrong in (VECTORS[:, :5], VECTORS[:5], VECTORS.double()):
        with pytest.raises(ValueError, match="vectors: expected float32 of shape"):
            encode_devices(matcher, LOGS, KNOWN, wrong)
    wrong = VECTORS.clone()
    wrong[4, 3] = torch.nan
    with pytest.raises(ValueError, match="vectors: that of token 4 has NaN or infinity"):
        encode_devices(matcher, LOGS, KNOWN, wrong)


@pytest.mark.parametrize("rounds", [0, 1])
def test_scores_that_are_nan_are_refused(rounds):
    matcher = HGNNMatcher(2, 0, 0, rounds=rounds).eval()
    devices = encode_devices(matcher, LOGS, KNOWN)
    devices.rhythm[3] = torch.nan
    with pytest.raises(ValueError, match=r"devices: 17 of 153 scores are NaN, that of \(0, 3\)"):
        score_pairs(matcher, devices, PAIRS)


def test_other_levels_are_named(matcher):
    pages = replace(LOGS.pages, prefixes=LOGS.pages.prefixes[:, [0, 1, 1]])
    deeper = replace(LOGS, pages=pages)
    with pytest.raises(ValueError, match=r"known: prefixes of these logs have 3 levels, .* for 2"):
        encode_devices(matcher, deeper, vocabulary(deeper), vectors_of(matcher))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="heads: expected some of"):
        HGNNMatcher(2, heads=("dense",))
    with pytest.raises(ValueError, match="width: heads"):
        HGNNMatcher(2, width=0, heads=("cross",))
    empty = LOGS.select(torch.tensor([0]))
    empty = type(empty)(
        empty.pages,
        Ragged(torch.tensor([0, 0]), torch.tensor([], dtype=torch.int64)),
        empty.time[:0],
        empty.names,
        empty.users,
        empty.kinds,
        empty.periods,
        empty.sources,
    )
    matcher = HGNNMatcher(2, width=0)
    devices = encode_devices(matcher, LOGS, KNOWN)
    with pytest.raises(ValueError, match="pairs: pair 1 is of device 3 with itself"):
        score_pairs(matcher, devices, torch.tensor([[0, 1], [3, 3]]))
    with pytest.raises(ValueError, match="device 'd0' has no visit"):
        HGNNMatcher(2, width=0)(empty, KNOWN)
