"""From scores to probabilities, and from the share of true pairs in training to that at test.

Of the pairs chosen for training a quarter are true, say, and of the candidates at test fewer. So a
calibration is followed by `shift_prior`, with the share at test as known or as `estimate_prior`
finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor

from graphnets.matching.metrics import check


@dataclass(frozen=True)
class PlattScaling:
    """The probability sigmoid(slope * score + offset) that a pair is true.

    J. Platt, *Probabilistic outputs for support vector machines* (1999), whose A and B are
    `-slope` and `-offset`. Equivalent to `sklearn.calibration.CalibratedClassifierCV` with
    `method="sigmoid"`.
    """

    slope: float
    offset: float

    @classmethod
    def fit(cls, scores: Tensor, labels: Tensor) -> Self:
        """Maximum likelihood with Platt's targets, on pairs that the scorer was not trained on.

        The targets are (t + 1) / (t + 2) for the t true pairs and 1 / (f + 2) for the f false
        ones, so that slope and offset are finite where the scores separate them. Newton's method
        with step halving, as in H.-T. Lin, C.-J. Lin, R. C. Weng, Machine Learning 68 (2007). Where
        all scores are equal the slope is 0.

        Args:
            scores: (k,) floating point.
            labels: (k,) bool.

        Raises:
            TypeError: scores are not floating point, or labels not bool.
            ValueError: shapes differ, a score is not finite, or labels are all equal.
        """
        check_both(scores, labels)
        x = scores.detach().double()
        center, scale = x.mean(), x.std(correction=0)
        if float(x.max()) == float(x.min()):
            scale = torch.ones_like(scale)  # rounding can make it tiny instead of 0
        slope, offset = newton((x - center) / scale, targets(labels))
        return cls(slope / float(scale), offset - slope * float(center / scale))

    def log_odds(self, scores: Tensor) -> Tensor:
        """slope * score + offset, the weights of correlation clustering: shape, dtype of scores."""
        return self.slope * scores + self.offset

    def __call__(self, scores: Tensor) -> Tensor:
        """Probabilities, in the shape and dtype of the scores."""
        return self.log_odds(scores).sigmoid()


@dataclass(frozen=True, eq=False)
class IsotonicCalibration:
    """The probability as a rising piecewise linear function of the score, constant beyond its ends.

    B. Zadrozny, C. Elkan, *Transforming classifier scores into accurate multiclass probability
    estimates*, KDD 2002. Equivalent to `sklearn.isotonic.IsotonicRegression` with
    `out_of_bounds="clip"`. It needs more pairs than Platt's two numbers, thousands, and its
    probabilities may be 0 and 1, whose log-odds are infinite.

    Attributes:
        scores: (m,) float64, rising.
        probabilities: (m,) float64, not falling.
    """

    scores: Tensor
    probabilities: Tensor

    @classmethod
    def fit(cls, scores: Tensor, labels: Tensor) -> Self:
        """Least squares among all rising functions, by pooling adjacent violators (SciPy's).

        Arguments and errors are those of `PlattScaling.fit`.
        """
        check_both(scores, labels)
        distinct, place, count = (
            scores.detach().double().unique(return_inverse=True, return_counts=True)
        )
        mean = torch.bincount(place, labels.double()) / count
        rising = isotonic_regression(mean.numpy(), weights=count.double().numpy()).x
        level = torch.from_numpy(np.clip(rising, 0, 1))
        ends = torch.ones_like(level, dtype=torch.bool)
        ends[1:-1] = (level[1:-1] != level[:-2]) | (level[1:-1] != level[2:])
        return cls(distinct[ends], level[ends])

    def __call__(self, scores: Tensor) -> Tensor:
        """Probabilities, in the shape and dtype of the scores."""
        found = np.interp(scores.double().numpy(), self.scores.numpy(), self.probabilities.numpy())
        return torch.from_numpy(found).to(scores.dtype)


def shift_prior(probabilities: Tensor, prior_from: float, prior_to: float) -> Tensor:
    """Probabilities of true pairs where their share is `prior_to` instead of `prior_from`.

    M. Saerens, P. Latinne, C. Decaestecker, Neural Computation 14 (2002), equation 2.4, for two
    classes: the odds are multiplied by the ratio of the priors' odds. Scores among true pairs, and
    among false ones, must be distributed the same in both places. Order, and so average precision,
    stays.

    Args:
        probabilities: (*), floating point, from 0 to 1.
        prior_from: share of true pairs that the probabilities were fitted to, between 0 and 1.
        prior_to: the share to go to, between 0 and 1.

    Returns:
        Of the shape and dtype of `probabilities`.

    Raises:
        TypeError: probabilities are not floating point.
        ValueError: a probability or a prior is out of range.
    """
    check_probabilities(probabilities, prior_from)
    if not 0 < prior_to < 1:
        raise ValueError(f"prior_to: expected a share between 0 and 1, got {prior_to}")
    true = probabilities * (prior_to / prior_from)
    false = (1 - probabilities) * ((1 - prior_to) / (1 - prior_from))
    return true / (true + false)


def estimate_prior(probabilities: Tensor, prior_from: float) -> float:
    """The share of true pairs among unlabelled ones, from their probabilities alone.

    The share of the highest likelihood, which the EM iteration of Saerens, Latinne and Decaestecker
    (2002), equation 2.9, climbs to: share <- mean of shift_prior(probabilities, prior_from, share).
    The likelihood is concave in the share, so that halving the interval of its maximum finds it
    where EM, which is slow for scores that overlap, may need thousands of rounds. It is no better
    than the calibration is: the probabilities must be right under `prior_from`.

    Args:
        probabilities: (k,) floating point, from 0 to 1.
        prior_from: the share that they were fitted to, between 0 and 1.

    Raises:
        TypeError: probabilities are not floating point.
        ValueError: there is none, or one or the prior is out of range.
    """
    check_probabilities(probabilities, prior_from)
    if not probabilities.numel():
        raise ValueError("probabilities: expected at least one pair, got none")
    p = probabilities.detach().double()
    true, false = p / prior_from, (1 - p) / (1 - prior_from)
    low, high = 0.0, 1.0
    for _ in range(52):
        share = (low + high) / 2
        slope = ((true - false) / (share * true + (1 - share) * false)).sum()
        low, high = (share, high) if float(slope) > 0 else (low, share)
    return (low + high) / 2


def targets(labels: Tensor) -> Tensor:
    """Platt's targets (k,) float64 instead of 1 and 0, by labels (k,) bool."""
    true = int(labels.sum())
    false = len(labels) - true
    return torch.where(labels, (true + 1) / (true + 2), 1 / (false + 2)).double()


def newton(x: Tensor, target: Tensor) -> tuple[float, float]:
    """Slope and offset of the smallest cross-entropy of sigmoid(slope x + offset) to the targets.

    x, target: (k,) float64, x of mean 0 and deviation 1, or 0 everywhere. The ridge is a millionth
    of a pair, and makes the slope 0 where x is.
    """
    design = torch.stack([x, torch.ones_like(x)], 1)
    ridge = 1e-12 * torch.eye(2, dtype=x.dtype, device=x.device)
    beta = torch.stack([x.new_zeros(()), target.mean().logit()])
    for _ in range(100):
        p = (design @ beta).sigmoid()
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + ridge
        step = torch.linalg.solve(hessian, design.T @ (p - target))
        if float(step.abs().max()) < 1e-6:  # the error of the next iterate is about its square
            beta = beta - step
            break
        loss = cross_entropy(design @ beta, target)
        while cross_entropy(design @ (beta - step), target) > loss:
            step = step / 2
        beta = beta - step
    slope, offset = beta.tolist()
    return slope, offset


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """The sum over pairs (k,), without overflow."""
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, target, reduction="sum")


def check_both(scores: Tensor, labels: Tensor) -> None:
    """Raise TypeError or ValueError unless finite scores have labels of both kinds."""
    check(scores, labels)
    if not bool(scores.isfinite().all()):
        raise ValueError("scores: expected finite numbers, got infinite ones")
    true = int(labels.sum())
    if not 0 < true < len(labels):
        raise ValueError(
            f"labels: expected true and false pairs, got {true} true ones of {len(labels)}"
        )


def check_probabilities(probabilities: Tensor, prior: float) -> None:
    """Raise TypeError or ValueError unless these are probabilities and the prior they have."""
    if not probabilities.is_floating_point():
        raise TypeError(f"probabilities: expected floating point, got {probabilities.dtype}")
    if not bool(((probabilities >= 0) & (probabilities <= 1)).all()):
        wrong = probabilities[~((probabilities >= 0) & (probabilities <= 1))]
        raise ValueError(
            f"probabilities: expected numbers from 0 to 1, got {float(wrong[0])}; log-odds become "
            "probabilities by sigmoid()"
        )
    if not 0 < prior < 1:
        raise ValueError(f"prior_from: expected a share between 0 and 1, got {prior}")
