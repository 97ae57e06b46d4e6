"""A linear layer whose weight is a sparse matrix of fixed pattern."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from sparsetorch.csr import CSRTensor
from sparsetorch.generators import random
from sparsetorch.nn.propagation import propagate
from sparsetorch.pattern import Pattern


class SparseLinear(nn.Module):
    """`y = x A^T + b` with a trainable sparse A: as `nn.Linear` where the pattern is full.

    pattern: (out_features, in_features). The parameters are `values`, (nnz,), in the pattern's
    order, and `bias`, (out_features,) or None. Both start uniform in +-1/sqrt(entries of the row),
    which keeps the variance of what each output sums as `nn.Linear` does.

    The pattern moves with the module, is shared by its copies, and is in its state as the buffers
    `crow` and `col`. Loading a state with another pattern is refused: its values would land in the
    wrong places. Build the layer with the pattern of the state instead.

    Raises:
        TypeError: not a Pattern.
    """

    crow: Tensor
    col: Tensor
    bias: nn.Parameter | None

    def __init__(
        self,
        pattern: Pattern,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if not isinstance(pattern, Pattern):
            raise TypeError(
                f"pattern: expected a Pattern, got {type(pattern).__name__}; for a random one use "
                "SparseLinear.random(in_features, out_features, density)"
            )
        self.values = nn.Parameter(torch.empty(pattern.nnz, device=device, dtype=dtype))
        bias_shape = (pattern.shape[0],)
        self.register_parameter(
            "bias", nn.Parameter(self.values.new_empty(bias_shape)) if bias else None
        )
        self.pattern = pattern
        self.register_buffer("crow", pattern.crow)
        self.register_buffer("col", pattern.col)
        self._settle()
        self.reset_parameters()

    @classmethod
    def random(
        cls,
        in_features: int,
        out_features: int,
        density: float,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> Self:
        """A layer with `round(density in_features out_features)` entries in random places.

        generator: draws the places, on the CPU.

        Raises:
            ValueError: a density outside [0, 1], or a negative size.
        """
        pattern = random(out_features, in_features, density, generator=generator).pattern
        return cls(pattern, bias, device, dtype)

    @property
    def in_features(self) -> int:
        """Length of the inputs."""
        return self.pattern.shape[1]

    @property
    def out_features(self) -> int:
        """Length of the outputs."""
        return self.pattern.shape[0]

    @property
    def weight(self) -> CSRTensor:
        """The matrix A, which shares its values with the layer."""
        return CSRTensor(self.pattern, self.values)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw values and bias anew."""
        if self.values.is_meta:
            return
        bounds = self.pattern.crow.diff().clamp(min=1).to(self.values.dtype).rsqrt()
        self.values.uniform_(-1, 1).mul_(bounds.index_select(0, self.pattern.row))
        if self.bias is not None:
            self.bias.uniform_(-1, 1).mul_(bounds)

    def forward(self, x: Tensor) -> Tensor:
        """x (*, in_features) -> (*, out_features), in the parameters' dtype or autocast's."""
        if x.ndim == 1:
            y = propagate(self.weight, x)
        else:
            rows = x.reshape(-1, x.shape[-1])
            y = propagate(self.weight, rows.mT).mT.reshape(*x.shape[:-1], self.out_features)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"nnz={self.pattern.nnz}, bias={self.bias is not None}"
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._settle()
        return self

    def _settle(self) -> None:
        """Bring the pattern to where the values are, with what compiled code reads of it."""
        if not self.values.is_meta:
            self.pattern = self.pattern.to(self.values.device)
            _ = self.weight
        self.crow, self.col = self.pattern.crow, self.pattern.col

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._settle()

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        for name in ("crow", "col"):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and not _equal(stored, own):
                error_msgs.append(
                    f"{prefix}{name}: the state has another sparsity pattern than this layer, and "
                    "nothing of it was loaded; build the layer with SparseLinear(Pattern("
                    f"state['{prefix}crow'], state['{prefix}col'], {self.pattern.shape}))"
                )
                return
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )


def _equal(stored: Tensor, own: Tensor) -> bool:
    """Whether two index arrays agree, whatever their integer dtypes and devices."""
    return torch.equal(stored.to(own.device, torch.int64), own.long())
