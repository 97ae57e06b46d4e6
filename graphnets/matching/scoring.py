"""Encode each device once, then score many pairs of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from graphnets.matching.devices import Devices
from graphnets.matching.logs import Logs
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.pairs import check_numbers
from graphnets.matching.tgce_matcher import TGCEMatcher
from graphnets.matching.vectors import check_finite
from graphnets.matching.vocabulary import Vocabulary
from graphnets.ragged import blocks

Progress = Callable[[int, int], None]  # how many are done, of how many


Matcher = HGNNMatcher | TGCEMatcher


@torch.no_grad()
def encode_devices(
    matcher: Matcher,
    logs: Logs,
    known: Vocabulary,
    vectors: Tensor | None = None,
    visits: int = 200_000,
    progress: Progress | None = None,
) -> Devices:
    """All devices of these logs, encoded block by block; a device does not depend on its block.

    Args:
        matcher: in evaluation mode.
        logs: of devices, none empty.
        known: the vocabulary of the logs' pages.
        vectors: of its tokens, where the matcher takes them.
        visits: largest number of visits a block, which bounds the memory; a block has at least one
            device.
        progress: called after each block.

    Raises:
        ValueError: there is no device, or an argument is not what the matcher takes.
    """
    if not len(logs):
        raise ValueError("logs: expected at least one device, got none")
    check_finite(vectors)  # here, not for each block and step of training
    encoded = []
    for block in blocks(logs.page.lengths, visits):
        encoded.append(matcher(logs.select(block), known, vectors))
        if progress:
            progress(int(block[-1]) + 1, len(logs))
    return Devices.cat(encoded)


@torch.no_grad()
def score_pairs(
    matcher: Matcher,
    devices: Devices,
    pairs: Tensor,
    block: int = 4096,
    progress: Progress | None = None,
) -> Tensor:
    """Log-odds (k,) float32 of pairs (k, 2) of encoded devices, block by block.

    A transductive matcher, whose scores depend on all the devices, does all pairs at once.

    Raises:
        ValueError: a device does not exist, or is paired with itself; a score is NaN.
    """
    check_numbers(pairs, len(devices))
    alike = (pairs[:, 0] == pairs[:, 1]).nonzero()
    if len(alike):
        k = int(alike[0])
        raise ValueError(f"pairs: pair {k} is of device {int(pairs[k, 0])} with itself")
    if matcher.transductive:
        return _not_nan(matcher.score(devices, pairs).cpu(), pairs)
    scores = torch.empty(len(pairs))
    for start in range(0, len(pairs), block):
        some = pairs[start : start + block].to(devices.vectors.device)
        members, local = some.unique(return_inverse=True)
        scores[start : start + block] = matcher.score(devices.select(members), local)
        if progress:
            progress(min(start + block, len(pairs)), len(pairs))
    return _not_nan(scores, pairs)


def _not_nan(scores: Tensor, pairs: Tensor) -> Tensor:
    """The scores themselves, unless one is NaN."""
    if bool(scores.isnan().any()):
        i, j = pairs[int(scores.isnan().nonzero()[0])].tolist()
        raise ValueError(
            f"devices: {int(scores.isnan().sum())} of {len(scores)} scores are NaN, that of "
            f"({i}, {j}) for one; what is kept of a device, or a parameter of the matcher, is "
            "NaN or infinite"
        )
    return scores
