import itertools

import pytest
import torch

from graphnets.matching.pairs import (
    all_pairs,
    canonical_pairs,
    checked_pairs,
    positive_pairs,
    same_user,
)


@pytest.mark.parametrize("users", [[], [3], [-1, -1], [4, -1, 4, 2, 4, 2, -1, 9], [5] * 6])
def test_positive_pairs_are_all_pairs_of_one_user(users):
    expected = [
        [i, j] for i, j in itertools.combinations(range(len(users)), 2) if users[i] == users[j] >= 0
    ]
    found = positive_pairs(torch.tensor(users, dtype=torch.int64))
    assert found.tolist() == expected
    pairs = all_pairs(len(users))
    assert pairs[same_user(torch.tensor(users, dtype=torch.int64), pairs)].tolist() == expected


def test_canonical_pairs_come_once_and_sorted():
    pairs = torch.tensor([[3, 1], [0, 2], [1, 3], [2, 0], [0, 1]])
    assert canonical_pairs(pairs, 4).tolist() == [[0, 1], [0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([[0, 4]], "expected devices from 0 to 3, got 0 to 4"),
        ([[-1, 2]], "got -1 to 2"),
        ([[2, 1]], "smaller number first"),
        ([[0, 1], [0, 1]], "each pair once"),
        ([[0, 1, 2]], "shape"),
    ],
)
def test_wrong_pairs_are_refused(pairs, message):
    with pytest.raises(ValueError, match=f"pairs: .*{message}"):
        checked_pairs(torch.tensor(pairs), 4)


def test_a_device_is_no_pair_of_itself():
    with pytest.raises(ValueError, match="device 2 is paired with itself"):
        canonical_pairs(torch.tensor([[0, 1], [2, 2]]), 4)
