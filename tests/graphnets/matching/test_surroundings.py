import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching import heads
from graphnets.matching.heads import SharedTokens
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.pairs import all_pairs
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.surroundings import crowding, expanded, place, places, surroundings
from graphnets.matching.vocabulary import vocabulary

KINDS = torch.tensor([0, 1, 0, 0, 1, 1, 0])


def unit_vectors(n=7, d=4, seed=0):
    vectors = torch.rand(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return vectors / vectors.norm(dim=1, keepdim=True)


def neighbours(C, i, kind):
    """Others of a kind, the nearest first."""
    others = [j for j in range(len(C)) if j != i and KINDS[j] == kind]
    return sorted(others, key=lambda j: -float(C[i, j]))


def test_expansion_is_that_of_the_vectors():
    vectors, strength = unit_vectors(), torch.tensor(0.7, dtype=torch.float64)
    C = vectors @ vectors.T
    more = vectors.clone()
    for i in range(7):
        for j in neighbours(C, i, KINDS[i])[:2]:
            more[i] += strength * C[i, j] * vectors[j]
    more = more / more.norm(dim=1, keepdim=True)
    torch.testing.assert_close(expanded(C, KINDS, strength, k=2), more @ more.T)


def test_crowding_is_the_mean_of_the_nearest_of_the_others_kind():
    vectors = unit_vectors()
    C = vectors @ vectors.T
    found = crowding(C, KINDS, k=3)
    for i in range(7):
        for kind in (0, 1):
            near = neighbours(C, i, kind)[:3]
            assert float(found[i, kind]) == pytest.approx(sum(float(C[i, m]) for m in near) / 3)


def test_places_count_who_is_nearer(monkeypatch):
    monkeypatch.setattr("graphnets.matching.surroundings.ENTRIES", 15)  # several blocks
    vectors = unit_vectors()
    C = vectors @ vectors.T
    found = places(C, KINDS)
    for i in range(7):
        for j in range(7):
            if i != j:
                assert found[i, j] == neighbours(C, i, KINDS[j]).index(j)


def test_surroundings_are_the_same_for_either_order():
    vectors = unit_vectors()
    among, pairs = place(vectors @ vectors.T, KINDS), all_pairs(7)
    found = surroundings(among, KINDS, pairs)
    assert found.shape == (21, 6)
    torch.testing.assert_close(surroundings(among, KINDS, pairs.flip(1)), found)
    assert bool(found.isfinite().all())


def test_derivatives():
    vectors = unit_vectors().requires_grad_()
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)

    def f(vectors, strength):
        return expanded(vectors @ vectors.T, KINDS, strength, k=2)

    assert torch.autograd.gradcheck(f, (vectors, strength))


def test_neighbours_change_scores_but_numbering_does_not():
    torch.manual_seed(0)
    logs = drawn_logs()
    known = vocabulary(logs)
    matcher = HGNNMatcher(2, width=0, rounds=2).eval()
    with torch.no_grad():
        for parameter in matcher.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    devices = encode_devices(matcher, logs, known)
    pairs = all_pairs(len(logs))
    scores = score_pairs(matcher, devices, pairs, block=5)
    order = torch.randperm(len(logs), generator=torch.Generator().manual_seed(1))
    found = score_pairs(matcher, devices.select(order.argsort()), order[pairs])
    torch.testing.assert_close(found, scores, rtol=1e-4, atol=1e-4)
    fewer = devices.select(torch.arange(6))
    alone = score_pairs(matcher, fewer, all_pairs(6))
    among = scores[(pairs < 6).all(1)]
    assert float((alone - among).abs().max()) > 1e-3


def test_too_many_devices_are_refused(monkeypatch):
    logs = drawn_logs()
    matcher = HGNNMatcher(2, width=0, rounds=1).eval()
    devices = encode_devices(matcher, logs, vocabulary(logs))
    monkeypatch.setattr(SharedTokens, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"all cosines of 18 .* at most 10 devices .* rounds=0"):
        score_pairs(matcher, devices, all_pairs(18))


@pytest.mark.parametrize("which", ["some pairs", "all pairs"])
def test_pairs_are_looked_up_and_scored_block_by_block(monkeypatch, which):
    logs = drawn_logs()
    matcher = HGNNMatcher(2, width=0, rounds=2).eval()
    devices = encode_devices(matcher, logs, vocabulary(logs))
    pairs = all_pairs(18) if which == "all pairs" else torch.tensor([[2, 5], [0, 17]])
    expected = score_pairs(matcher, devices, pairs)
    sizes = {"looked up": [], "scored": []}

    def recorded(kind, function):
        def call(*arguments):
            found = function(*arguments)
            sizes[kind].append(len(arguments[-1]))
            return found

        return call

    monkeypatch.setattr(heads, "matches", recorded("looked up", heads.matches))
    monkeypatch.setattr(heads, "surroundings", recorded("scored", heads.surroundings))
    monkeypatch.setattr(heads, "LOOKUPS", 200)
    monkeypatch.setattr(heads, "PAIRS_AT_ONCE", 40)
    assert torch.equal(score_pairs(matcher, devices, pairs), expected)
    assert sum(sizes["looked up"]) == len(all_pairs(18)) + (0 if which == "all pairs" else 2)
    assert max(sizes["looked up"]) < 20
    assert sum(sizes["scored"]) == 3 * len(pairs)
    assert max(sizes["scored"]) <= 40
