"""Stratified folds: each has its share of every class."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Fold(NamedTuple):
    """Indices, rising: each (k,) int64."""

    train: Tensor
    validation: Tensor
    test: Tensor


def stratified_fold(labels: Tensor, fold: int, folds: int = 10, seed: int = 0) -> Fold:
    """Part `fold` of `folds` tests, the next one validates, the others train.

    labels: (n,) int64. Over all folds each index tests once. The classes are dealt out one after
    another, in an order that `seed` draws, so that sizes differ by at most one, of each class too.
    Equivalent in its shares to `sklearn.model_selection.StratifiedKFold`.

    Raises:
        ValueError: less than three folds, more than there are labels, or a fold that does not
            exist.
    """
    if not 3 <= folds <= len(labels):
        raise ValueError(f"folds: expected 3 to {len(labels)}, the number of labels, got {folds}")
    if not 0 <= fold < folds:
        raise ValueError(f"fold: expected 0 to {folds - 1}, got {fold}")
    drawn = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    dealt = drawn[labels[drawn].argsort(stable=True)]
    part = torch.empty_like(dealt)
    part[dealt] = torch.arange(len(labels)) % folds
    test, validation = part == fold, part == (fold + 1) % folds
    masks = (~(test | validation), validation, test)
    return Fold(*(mask.nonzero()[:, 0] for mask in masks))
