"""Splits that no user crosses: a device in training says nothing of the users in a test fold."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsetorch.checks import check_count


def user_folds(users: Tensor, n_folds: int, seed: int, kinds: Tensor | None = None) -> Tensor:
    """The fold of each device, (n,) int64 from 0 to n_folds - 1; all of a user's are in one.

    The largest users are dealt first, each round's larger ones to the smaller folds: the numbers
    of devices of two folds differ by no more than the largest user has. Among users of equal size
    the seed decides. Equivalent to `sklearn.model_selection.StratifiedGroupKFold` in purpose.

    Args:
        users: (n,) int64; a device whose user is not known, -1, is a user of its own.
        n_folds: at least 2.
        seed: of the shuffle.
        kinds: (n,) int64; if given, the users with several kinds of devices, whose pairs are the
            cross-device ones, are dealt first: the numbers of them in two folds differ by at most
            one, and those of the others, too.

    Raises:
        ValueError: an argument is not as described, or there are fewer users, or with `kinds`
            users with several kinds, than folds.
    """
    user = numbered_users(users)
    size = torch.bincount(user)
    several = torch.ones_like(size, dtype=torch.bool) if kinds is None else mixed(user, kinds)
    n_folds = check_count("n_folds", n_folds, "folds", least=2)
    for name, count in (("users", len(size)), ("users with several kinds", int(several.sum()))):
        if count < n_folds:
            raise ValueError(
                f"n_folds: {n_folds} folds need as many {name}, got {count}; take fewer folds"
                + ("" if kinds is None else ", or leave out kinds")
            )
    shuffled = torch.randperm(len(size), generator=torch.Generator().manual_seed(seed))
    by_size = shuffled[size[shuffled].argsort(descending=True, stable=True)]
    fold = torch.empty_like(size)
    load = [0] * n_folds
    for stratum in (by_size[several[by_size]], by_size[~several[by_size]]):
        fold[stratum] = torch.tensor(dealt(size[stratum].tolist(), load), dtype=torch.int64)
    return fold[user]


def numbered_users(users: Tensor) -> Tensor:
    """A number (n,) int64 for each user (n,), from 0; devices of unknown users get their own.

    Raises:
        ValueError: not int64 of shape (n,), or no device.
    """
    if users.ndim != 1 or users.dtype != torch.int64 or not len(users):
        raise ValueError(
            f"users: expected int64 of shape (n,) with n at least 1, got {users.dtype} of shape "
            f"{tuple(users.shape)}"
        )
    alone = -1 - torch.arange(len(users), device=users.device)
    return users.where(users >= 0, alone).unique(return_inverse=True)[1]


def mixed(user: Tensor, kinds: Tensor) -> Tensor:
    """Whether each user, numbered from 0 in user (n,), has several kinds (n,): bool.

    Raises:
        ValueError: kinds are not int64 of the shape of `user`.
    """
    if kinds.shape != user.shape or kinds.dtype != torch.int64:
        raise ValueError(
            f"kinds: expected int64 of shape {tuple(user.shape)}, as users, got {kinds.dtype} of "
            f"shape {tuple(kinds.shape)}"
        )
    return torch.bincount(torch.stack([user, kinds], 1).unique(dim=0)[:, 0]) > 1


def dealt(sizes: list[int], load: list[int]) -> list[int]:
    """A fold for each of the sizes, which fall; the loads of the folds grow by them.

    One round deals one to each fold. If loads differ by at most d before it, they differ by at most
    d or the round's largest size after it, whichever is larger.
    """
    folds: list[int] = []
    for start in range(0, len(sizes), len(load)):
        smallest_first = sorted(range(len(load)), key=load.__getitem__)
        for size, fold in zip(sizes[start : start + len(load)], smallest_first):
            load[fold] += size
            folds.append(fold)
    return folds
