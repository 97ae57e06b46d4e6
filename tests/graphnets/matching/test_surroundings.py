import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.heads import SharedTokens
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.pairs import all_pairs
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.surroundings import crowding, expanded, places, surroundings
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
        for j in range(7):
            near = neighbours(C, i, KINDS[j])[:3]
            assert float(found[i, j]) == pytest.approx(sum(float(C[i, m]) for m in near) / 3)


def test_places_count_who_is_nearer():
    vectors = unit_vectors()
    C = vectors @ vectors.T
    found = places(C, KINDS)
    for i in range(7):
        for j in range(7):
            if i != j:
                assert found[i, j] == neighbours(C, i, KINDS[j]).index(j)


def test_surroundings_are_the_same_for_either_order():
    vectors = unit_vectors()
    found = surroundings(vectors @ vectors.T, KINDS)
    assert found.shape == (7, 7, 6)
    torch.testing.assert_close(found, found.transpose(0, 1))
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
    with pytest.raises(ValueError, match="18 are too many for all their cosines"):
        score_pairs(matcher, devices, all_pairs(18))
