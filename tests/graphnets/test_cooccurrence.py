from itertools import pairwise

import pytest
import torch

from graphnets.cooccurrence import cooccurrence_vectors
from graphnets.ragged import Ragged


def sequences(*lists):
    lengths = torch.tensor([len(row) for row in lists])
    values = torch.tensor([v for row in lists for v in row], dtype=torch.int64)
    return Ragged.from_lengths(lengths, values)


def test_vectors_factorize_the_mutual_information():
    lists = [[0, 1, 2], [1, 0], [2, 3, 0], [3, 3, 1, 2], [4]]
    C = torch.zeros(5, 5, dtype=torch.float64)
    for row in lists:
        for x, y in pairwise(row):
            if x != y:
                C[x, y] += 1
                C[y, x] += 1
    alone = C.sum(1)
    M = (C * C.sum() / (alone[:, None] * alone)).log().nan_to_num(neginf=0).clamp(min=0)
    squares, U = torch.linalg.eigh(M @ M)
    best = U[:, -3:] * squares[-3:].sqrt().sqrt()  # of rank 3
    best = best / best.norm(dim=1, keepdim=True).clamp(min=1)
    found = cooccurrence_vectors(sequences(*lists), 5, 3, window=1).double()
    torch.testing.assert_close(found @ found.T, best @ best.T, rtol=1e-5, atol=1e-6)
    assert found[4].abs().max() == 0  # comes alone


def test_tokens_in_one_company_are_alike():
    a = [[0, 1, 2, 0, 2, 1]] * 5
    b = [[3, 4, 5, 5, 3, 4]] * 5
    found = cooccurrence_vectors(sequences(*a, *b), 6, 2, window=3)
    alike = found @ found.T
    assert alike[:3, :3].min() > 5 * alike[:3, 3:].abs().max()


def test_windows_do_not_reach_across_sequences():
    found = cooccurrence_vectors(sequences([0], [1]), 2, 2, window=5)
    assert torch.equal(found, torch.zeros(2, 2))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="tokens from 0 to 1, got 0 to 2"):
        cooccurrence_vectors(sequences([0, 2]), 2, 2)
    with pytest.raises(ValueError, match="width and window"):
        cooccurrence_vectors(sequences([0, 1]), 2, 0)
