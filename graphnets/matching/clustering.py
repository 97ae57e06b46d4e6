"""From pairs to users by simple rules: connected components, and a cap on a device's pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from graphnets.matching.pairs import checked_pairs
from sparsetorch import CSRTensor, graph
from sparsetorch.checks import check_count


def connected_components(n_devices: int, pairs: Tensor) -> Tensor:
    """The user of each device if every pair is right: (n_devices,) int64, from 0.

    The transitive closure of the pairs. Users are numbered by their first devices; a device in no
    pair is a user of its own. One wrong pair joins two users: `cap_degrees` and
    `correlation_clustering` are more careful.

    Args:
        n_devices: how many devices there are.
        pairs: (k, 2) int64.

    Raises:
        ValueError: pairs are not pairs of different devices that exist, each once.
    """
    first, second = checked_pairs(pairs, n_devices).unbind(1)
    ones = torch.ones(len(pairs), device=pairs.device)
    links = CSRTensor.from_coo(first, second, ones, (n_devices, n_devices))
    return graph.connected_components(links.pattern).labels


def cap_degrees(pairs: Tensor, scores: Tensor, cap: int) -> Tensor:
    """Which pairs are kept, (k,) bool, so that no device is in more than `cap` of them.

    Greedy: from the highest score to the lowest, and of equal ones in their order, a pair is kept
    while both its devices are in fewer than `cap` kept pairs. Its total score is at least half of
    the best possible (J. Mestre, *Greedy in approximation algorithms*, ESA 2006), for scores that
    are not negative. One pass in Python over lists: half a second for a million pairs, which is
    what rounds of whole-tensor operations with the same result need, too, on random pairs; on a
    chain of rising scores those need as many rounds as pairs.

    Args:
        pairs: (k, 2) int64, each once.
        scores: (k,) floating point.
        cap: at least 1.

    Raises:
        TypeError: scores are not floating point.
        ValueError: an argument is not as described, or a score is NaN.
    """
    n_devices = int(pairs.max()) + 1 if len(pairs) else 0
    checked_pairs(pairs, n_devices)
    check_pair_values("scores", scores, pairs)
    cap = check_count("cap", cap, "pair")
    order = scores.argsort(descending=True, stable=True)
    first, second = pairs[order].T.tolist()
    left = [cap] * n_devices
    kept = [False] * len(first)
    for place, (i, j) in enumerate(zip(first, second)):
        if left[i] and left[j]:
            left[i] -= 1
            left[j] -= 1
            kept[place] = True
    result = torch.empty(len(pairs), dtype=torch.bool, device=pairs.device)
    result[order] = torch.tensor(kept, dtype=torch.bool, device=pairs.device)
    return result


def check_pair_values(name: str, values: Tensor, pairs: Tensor) -> None:
    """Raise TypeError or ValueError unless `values` has a floating-point number for each pair."""
    if not values.is_floating_point():
        raise TypeError(f"{name}: expected floating point, got {values.dtype}")
    if values.shape != (len(pairs),):
        raise ValueError(
            f"{name}: expected one for each of {len(pairs)} pairs, got shape {tuple(values.shape)}"
        )
    if bool(values.isnan().any()):
        raise ValueError(f"{name}: {int(values.isnan().sum())} of {len(values)} are NaN")


def numbered_by_first(labels: Tensor) -> Tensor:
    """The same clusters (n,) int64, numbered from 0 by their first devices."""
    found, cluster = labels.unique(return_inverse=True)
    place = torch.arange(len(labels), device=labels.device)
    first = place.new_full((len(found),), len(labels)).scatter_reduce(0, cluster, place, "amin")
    return first.argsort().argsort()[cluster]
