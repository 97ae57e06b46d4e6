import pytest
import torch

from graphnets.matching.pair_files import users_of_pairs
from graphnets.matching.pairs import positive_pairs
from graphnets.matching.splits import user_folds


def drawn(n, n_users, seed):
    """Users of devices, some of whom have many and some unknown, and kinds of devices."""
    g = torch.Generator().manual_seed(seed)
    users = (torch.rand(n, generator=g).square() * n_users).long() * 5
    users[torch.rand(n, generator=g) < 0.1] = -1
    return users, torch.randint(0, 2, (n,), generator=g)


def of_each(folds, users):
    """The folds of the devices of each known user."""
    return [folds[users == u].unique().tolist() for u in users[users >= 0].unique().tolist()]


@pytest.mark.parametrize("n_folds", [2, 3, 5])
@pytest.mark.parametrize(("n", "n_users"), [(40, 10), (200, 63), (1000, 400)])
def test_users_are_whole_and_folds_even(n, n_users, n_folds):
    users, _ = drawn(n, n_users, seed=n)
    folds = user_folds(users, n_folds, seed=1)
    assert folds.shape == (n,)
    assert folds.dtype == torch.int64
    assert all(len(found) == 1 for found in of_each(folds, users))
    devices = torch.bincount(folds, minlength=n_folds)
    largest = int(torch.bincount(users[users >= 0]).max())
    assert int(devices.max() - devices.min()) <= largest
    counts = torch.bincount(torch.tensor(of_each(folds, users))[:, 0], minlength=n_folds)
    counts += torch.bincount(folds[users < 0], minlength=n_folds)  # users of their own
    assert int(counts.max() - counts.min()) <= 1


@pytest.mark.parametrize("n_folds", [2, 5])
def test_users_with_several_kinds_are_dealt_evenly(n_folds):
    users, kinds = drawn(300, 80, seed=2)
    folds = user_folds(users, n_folds, seed=0, kinds=kinds)
    known = users[users >= 0].unique().tolist()
    several = [len(kinds[users == u].unique()) > 1 for u in known]
    fold = torch.tensor(of_each(folds, users))[:, 0]
    assert 10 < sum(several) < len(known)
    counts = torch.bincount(fold[torch.tensor(several)], minlength=n_folds)
    assert int(counts.max() - counts.min()) <= 1
    rest = torch.bincount(fold[~torch.tensor(several)], minlength=n_folds)
    rest += torch.bincount(folds[users < 0], minlength=n_folds)
    assert int(rest.max() - rest.min()) <= 1
    devices = torch.bincount(folds, minlength=n_folds)
    largest = int(torch.bincount(users[users >= 0]).max())
    assert int(devices.max() - devices.min()) <= largest


def test_the_seed_decides():
    users, kinds = drawn(300, 80, seed=3)
    first = user_folds(users, 5, seed=0, kinds=kinds)
    assert torch.equal(first, user_folds(users, 5, seed=0, kinds=kinds))
    assert not torch.equal(first, user_folds(users, 5, seed=1, kinds=kinds))


def test_as_many_users_as_folds_are_enough():
    users = torch.tensor([7, 7, 3, 9, 9, 9])
    assert sorted(f for (f,) in of_each(user_folds(users, 3, seed=0), users)) == [0, 1, 2]
    assert torch.equal(user_folds(users, 3.0, 0), user_folds(users, 3, 0))  # pyright: ignore
    unknown = torch.full((3,), -1)
    assert user_folds(unknown, 3, seed=0).sort().values.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("users", "n_folds", "kinds", "message"),
    [
        ([1, 1, 2], 3, None, "3 folds need as many users, got 2"),
        ([1, 1, 2, 2, 3], 2, [0, 1, 0, 0, 0], "as many users with several kinds, got 1; .*kinds"),
        ([1, 2], 1, None, "n_folds: expected at least 2 folds, got 1"),
        ([1, 2], float("nan"), None, "n_folds: .*got nan"),
        ([1.0, 2.0], 2, None, "users: expected int64"),
        ([1, 2], 2, [0], r"kinds: expected int64 of shape \(2,\)"),
        ([], 2, None, "users: expected int64"),
    ],
)
def test_too_few_users_and_wrong_arguments_are_refused(users, n_folds, kinds, message):
    kinds = None if kinds is None else torch.tensor(kinds)
    with pytest.raises(ValueError, match=message):
        user_folds(torch.tensor(users), n_folds, seed=0, kinds=kinds)


def test_folds_of_users_known_by_pairs_keep_components_whole():
    known = torch.tensor([3, 0, 3, 8, 8, 3, 1])
    found = users_of_pairs(positive_pairs(known), 7)
    folds = user_folds(found, 2, seed=0)
    assert bool((folds[positive_pairs(known)].diff() == 0).all())
