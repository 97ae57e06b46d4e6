"""A linear matcher: logistic regression on the features of pairs."""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

ROWS = 1 << 16  # pairs taken at once
STEPS = 100


class LogisticMatcher(nn.Module):
    """The log-odds of a match, linear in standardised features.

    Minimises `sum_i log(1 + exp(-s_i z_i)) + l2/2 |w|^2` with s_i = 1 of a match and -1 otherwise,
    `z = w^T x + b`, by Newton's method in float64; features have mean 0 and deviation 1 on the
    training pairs, so that one l2 serves all. Equivalent to scikit-learn's
    `make_pipeline(StandardScaler(), LogisticRegression(C=1 / l2))`.

    It stays on the CPU and in float64, wherever the module that has it goes: its features are made
    there, and not every device has float64. So what it keeps are no buffers.

    Args:
        n_features: of a pair.
        l2: strength of the penalty, positive; that of b is none.
        squares: whether to add the squares of the standardised features.
        by: a feature; every term is added again multiplied by it, so that for a feature of 0 and 1
            both values have weights of their own.
    """

    def __init__(
        self, n_features: int, l2: float = 30.0, squares: bool = False, by: int | None = None
    ) -> None:
        super().__init__()
        if l2 <= 0:
            raise ValueError(f"l2: expected a positive number, got {l2}")
        if by is not None and not 0 <= by < n_features:
            raise ValueError(f"by: expected a feature from 0 to {n_features - 1}, got {by}")
        self.n_features, self.l2, self.squares, self.by = n_features, l2, squares, by
        terms = n_features * (1 + squares) * (1 + (by is not None))
        self.mean = torch.zeros(n_features, dtype=torch.float64)
        self.scale = torch.ones(n_features, dtype=torch.float64)
        self.weight = torch.zeros(terms + 1, dtype=torch.float64)

    def get_extra_state(self) -> dict[str, Tensor]:
        """What `state_dict` has of it."""
        return {"mean": self.mean, "scale": self.scale, "weight": self.weight}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Take back what `get_extra_state` gave, wherever it was loaded to.

        Raises:
            ValueError: it is of a matcher of other features or terms, or something is missing.
        """
        own = self.get_extra_state()
        if state.keys() != own.keys():
            raise ValueError(f"state: expected {sorted(own)}, got {sorted(state)}")
        for name, values in state.items():
            if values.shape != own[name].shape:
                raise ValueError(
                    f"state: expected {name} of shape {tuple(own[name].shape)}, got "
                    f"{tuple(values.shape)}; load it into a matcher of the same arguments"
                )
        for name, values in state.items():
            setattr(self, name, values.to("cpu", torch.float64, copy=True))

    def fit(self, features: Tensor, labels: Tensor) -> Self:
        """Find the weights; they do not depend on the order of the pairs.

        Args:
            features: (k, n_features) floating, finite, on the CPU.
            labels: (k,) bool, whether a pair is a match, on the CPU.

        Raises:
            ValueError: shapes, dtypes or devices do not fit, a feature is not finite, or all labels
                are one.
        """
        self._check(features)
        _check_place("labels", labels)
        if labels.shape != (len(features),) or labels.dtype != torch.bool:
            raise ValueError(
                f"labels: expected bool of shape ({len(features)},), got {labels.dtype} of shape "
                f"{tuple(labels.shape)}"
            )
        matches = int(labels.sum())
        if not 0 < matches < len(labels):
            raise ValueError(f"labels: expected both sorts, got {matches} of {len(labels)} matches")
        self.mean, self.scale = _moments(features)
        self.weight = torch.zeros_like(self.weight)
        self.weight[-1] = torch.tensor(matches / (len(labels) - matches)).double().log()
        loss, slope, curvature = self._objective(features, labels, self.weight)
        for _ in range(STEPS):
            step = torch.linalg.solve(curvature, slope)
            if float(step @ slope) <= 1e-12 * (1 + loss):
                break
            length = 1.0
            while length > 1e-9:
                weight = self.weight - length * step
                found = self._objective(features, labels, weight)
                if found[0] <= loss - 1e-4 * length * float(step @ slope):
                    self.weight, (loss, slope, curvature) = weight, found
                    break
                length /= 2
            else:
                break
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds (k,) float64 of the features (k, n_features) of pairs, both on the CPU.

        Raises:
            ValueError: shape or device do not fit, or a feature is not finite.
        """
        self._check(features)
        blocks = [self._terms(block) @ self.weight for block in features.split(ROWS)]
        return torch.cat(blocks)

    def _objective(
        self, features: Tensor, labels: Tensor, weight: Tensor
    ) -> tuple[float, Tensor, Tensor]:
        """The loss at a weight, its gradient and its Hessian."""
        penalty = torch.full_like(weight, self.l2)
        penalty[-1] = 0
        loss = 0.5 * float(penalty @ weight**2)
        slope, curvature = penalty * weight, penalty.diag()
        for block, label in zip(features.split(ROWS), labels.double().split(ROWS)):
            terms = self._terms(block)
            z = terms @ weight
            loss += float(nn.functional.binary_cross_entropy_with_logits(z, label, reduction="sum"))
            p = z.sigmoid()
            slope += terms.T @ (p - label)
            curvature += (terms * (p * (1 - p))[:, None]).T @ terms
        return loss, slope, curvature

    def _terms(self, features: Tensor) -> Tensor:
        z = (features.double() - self.mean) / self.scale
        terms = torch.cat([z, z**2 - 1], 1) if self.squares else z
        if self.by is not None:
            terms = torch.cat([terms, terms * z[:, self.by, None]], 1)
        return torch.cat([terms, torch.ones_like(z[:, :1])], 1)

    def _check(self, features: Tensor) -> None:
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise ValueError(
                f"features: expected shape (k, {self.n_features}), got {tuple(features.shape)}"
            )
        _check_place("features", features)
        bad = ~features.isfinite()
        if bool(bad.any()):
            row, column = bad.nonzero()[0].tolist()
            raise ValueError(
                f"features: expected finite numbers, got {float(features[row, column])} as feature "
                f"{column} of pair {row}"
            )


def _check_place(name: str, given: Tensor) -> None:
    if not given.is_cpu:
        raise ValueError(
            f"{name}: expected on the CPU, where a linear matcher stays, got on {given.device}; "
            f"take {name}.cpu()"
        )


def _moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature; one where it does not vary."""
    blocks = features.split(ROWS)
    mean = torch.stack([b.double().sum(0) for b in blocks]).sum(0) / len(features)
    square = torch.stack([((b.double() - mean) ** 2).sum(0) for b in blocks]).sum(0)
    deviation = (square / len(features)).sqrt()
    varies = deviation > 1e-9 * mean.abs().clamp(min=1e-9)
    return mean, torch.where(varies, deviation, 1.0)
