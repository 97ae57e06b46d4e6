"""The learning rate over a training: rise, stay, fall."""

from __future__ import annotations

import math


def warmup_stable_decay(
    step: int, steps: int, warmup: int, decay: float = 0.2, floor: float = 0.01
) -> float:
    """The factor of the peak rate at a step, from 0 on: linear, 1, then 1 - sqrt down to `floor`.

    S. Hu et al., arXiv:2404.06395; with the square root, A. Hägele et al., arXiv:2405.18392, as
    Nemotron 3 Super is trained.

    Args:
        step: from 0 to steps.
        steps: of the training.
        warmup: steps of the rise.
        decay: share of the steps that fall.
        floor: the last factor.
    """
    rise = min(1.0, (step + 1) / max(warmup, 1))
    fall = decay * steps
    left = (step - (steps - fall)) / fall if fall else 0.0
    return rise * (floor + (1 - floor) * (1 - math.sqrt(min(max(left, 0.0), 1.0))))
