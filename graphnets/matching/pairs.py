"""Pairs of devices: (k, 2) int64, the smaller number first, each pair once."""

from __future__ import annotations

import torch
from torch import Tensor


def checked_pairs(pairs: Tensor, n_devices: int) -> Tensor:
    """The pairs themselves, if they are pairs of different devices that exist, each once.

    Raises:
        ValueError: they are not; `canonical_pairs` puts them in order.
    """
    check_numbers(pairs, n_devices)
    if len(pairs) and bool((pairs[:, 0] >= pairs[:, 1]).any()):
        i, j = pairs[pairs[:, 0] >= pairs[:, 1]][0].tolist()
        raise ValueError(
            f"pairs: expected the smaller number first, got ({i}, {j}); canonical_pairs sorts"
        )
    if len(keys(pairs, n_devices).unique()) < len(pairs):
        raise ValueError("pairs: expected each pair once; canonical_pairs drops repetitions")
    return pairs


def canonical_pairs(pairs: Tensor, n_devices: int) -> Tensor:
    """Pairs in any order, some repeated or both ways round -> each once, sorted.

    Raises:
        ValueError: a device does not exist, or is paired with itself.
    """
    check_numbers(pairs, n_devices)
    same = pairs[:, 0] == pairs[:, 1]
    if bool(same.any()):
        raise ValueError(f"pairs: device {int(pairs[same][0, 0])} is paired with itself")
    found = keys(pairs.sort(1).values, n_devices).unique()
    return torch.stack([found // n_devices, found % n_devices], 1)


def check_numbers(pairs: Tensor, n_devices: int) -> None:
    """Raise ValueError unless `pairs` is (k, 2) int64 with numbers of devices that exist."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise ValueError(
            f"pairs: expected int64 of shape (k, 2), got {pairs.dtype} of shape "
            f"{tuple(pairs.shape)}"
        )
    if len(pairs) and (int(pairs.min()) < 0 or int(pairs.max()) >= n_devices):
        raise ValueError(
            f"pairs: expected devices from 0 to {n_devices - 1}, got {int(pairs.min())} to "
            f"{int(pairs.max())}"
        )


def check_pair(pair: tuple[int, int], n_devices: int) -> None:
    """Raise ValueError unless these are the numbers of two devices."""
    if pair[0] == pair[1] or not all(0 <= device < n_devices for device in pair):
        raise ValueError(
            f"pair: expected two different devices from 0 to {n_devices - 1}, got {tuple(pair)}"
        )


def keys(pairs: Tensor, n_devices: int) -> Tensor:
    """One number for each pair, (k,) int64, by which pairs sort and compare."""
    return pairs[:, 0] * n_devices + pairs[:, 1]


def all_pairs(n_devices: int) -> Tensor:
    """Every pair of n devices."""
    return torch.combinations(torch.arange(n_devices))


def same_user(users: Tensor, pairs: Tensor) -> Tensor:
    """Whether both devices of a pair are one user's, (k,) bool, by users (n,), -1 for unknown.

    A device whose user is not known belongs to nobody else.
    """
    first, second = users[pairs].unbind(1)
    return (first == second) & (first >= 0)


def positive_pairs(users: Tensor) -> Tensor:
    """All pairs of devices of one user, from users (n,) int64, -1 for unknown."""
    order = users.argsort(stable=True)
    order = order[users[order] >= 0]
    counts = users[order].unique_consecutive(return_counts=True)[1]
    end = torch.repeat_interleave(counts.cumsum(0), counts)  # where the devices of a user end
    place = torch.arange(len(order))
    partners = end - place - 1
    first = torch.repeat_interleave(place, partners)
    begin = partners.cumsum(0) - partners
    second = first + 1 + torch.arange(len(first)) - begin[first]
    return canonical_pairs(torch.stack([order[first], order[second]], 1), len(users))
