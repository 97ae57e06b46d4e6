"""The dense feed-forward block of the family: squared ReLU, never gated, no biases."""

from __future__ import annotations

from torch import Tensor, nn

from sparsetorch_kernels import squared_relu


class MLP(nn.Module):
    """down relu(up x)^2.

    Between forward and backward only the input and the activation's result, which the second layer
    reads, are kept; `relu(...).square()` keeps a third tensor, of the inner width.

    Args:
        d_model: width of input and output.
        d_inner: width in between.

    Raises:
        ValueError: a width below 1.
    """

    def __init__(self, d_model: int, d_inner: int) -> None:
        super().__init__()
        for name, size in (("d_model", d_model), ("d_inner", d_inner)):
            if size < 1:
                raise ValueError(f"{name}: expected at least 1, got {size}")
        self.up_proj = nn.Linear(d_model, d_inner, bias=False)
        self.down_proj = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model)."""
        return self.down_proj(squared_relu(self.up_proj(x)))
