import numpy as np
import pytest
from random_logs import random_logs

from graphnets.matching import products
from graphnets.matching.expansion import crowding, expanded, ranks, rescored
from graphnets.matching.neighbours import nearest
from graphnets.matching.pairs import all_pairs
from graphnets.matching.products import pair_cosines, shared_tokens
from graphnets.matching.tfidf import TfIdf

LOGS = random_logs()
MODEL = TfIdf().fit(LOGS)
VECTORS = MODEL.transform(LOGS)
DENSE = VECTORS.toarray()
PAIRS = all_pairs(len(LOGS))
FOUND = nearest(VECTORS, 3)


def test_a_vector_is_expanded_by_its_neighbours():
    result = expanded(VECTORS, FOUND).toarray()
    for i in range(len(LOGS)):
        row = DENSE[i].copy()
        for j, score in zip(FOUND.index[i].tolist(), FOUND.score[i].tolist()):
            if j >= 0:
                row += score * DENSE[j]
        assert result[i] == pytest.approx(row / max(np.linalg.norm(row), 1e-9), abs=1e-5)


def test_rescored_neighbours_are_the_same_in_another_order():
    other = TfIdf([0], words=False).fit(LOGS).transform(LOGS)
    result = rescored(FOUND, other)
    scores = (other @ other.T).toarray()
    for i in range(len(LOGS)):
        expected = sorted(FOUND.index[i].tolist(), key=lambda j: -scores[i, j] if j >= 0 else 9)
        near = [scores[i, j] for j in expected if j >= 0]
        assert sorted(result.index[i].tolist()) == sorted(expected)
        assert result.score[i, : len(near)].tolist() == pytest.approx(near, abs=1e-6)


def test_crowding_is_the_mean_of_the_nearest():
    scores = DENSE @ DENSE.T
    np.fill_diagonal(scores, 0)
    expected = np.sort(scores, 1)[:, -2:].mean(1)
    assert crowding(FOUND, 2).tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def test_ranks_are_places_among_neighbours():
    expected = []
    for i, j in PAIRS.tolist():
        lists = FOUND.index[i].tolist(), FOUND.index[j].tolist()
        expected.append([near.index(d) if d in near else 3 for near, d in zip(lists, (j, i))])
    assert ranks(FOUND, PAIRS).tolist() == expected
    empty = nearest(VECTORS[:0], 3)
    assert ranks(empty, PAIRS[:0]).shape == (0, 2)


@pytest.mark.parametrize("block", [20, 500, 1 << 24])
def test_products_of_pairs(monkeypatch, block):
    monkeypatch.setattr(products, "BLOCK", block)
    first, second = PAIRS.numpy().T
    cosines = (DENSE[first] * DENSE[second]).sum(1)
    assert pair_cosines(VECTORS, PAIRS).tolist() == pytest.approx(cosines.tolist(), abs=1e-5)
    both = (DENSE[first] > 0) & (DENSE[second] > 0)
    weights = both * MODEL.idf
    expected = np.stack([both.sum(1), weights.sum(1), weights.max(1)], 1)
    assert np.allclose(shared_tokens(VECTORS, MODEL.idf, PAIRS).numpy(), expected, rtol=1e-5)


def test_no_pairs():
    assert pair_cosines(VECTORS, PAIRS[:0]).shape == (0,)
    assert shared_tokens(VECTORS, MODEL.idf, PAIRS[:0]).shape == (0, 3)


def test_neighbours_of_others_are_refused():
    for function in (lambda: expanded(VECTORS[:5], FOUND), lambda: rescored(FOUND, VECTORS[:5])):
        with pytest.raises(ValueError, match="found: expected neighbours of 5 devices, got 18"):
            function()
