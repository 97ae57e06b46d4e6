"""Which rows belong to which expert, as the backends read it."""

from typing import NamedTuple

from torch import Tensor

from sparsetorch_kernels.layout import Layout


class Routes(NamedTuple):
    """A sparse (E, T) matrix of gates, R of them, and where each token finds its own.

    token: (R,) token of each row, by experts. gate: (R,) its weight there.
    t_crow: (T + 1,), t_perm: (R,) the rows of each token, for sums in a fixed order.
    """

    token: Tensor
    gate: Tensor
    t_crow: Tensor
    t_perm: Tensor

    @property
    def by_token(self) -> Layout:
        """The (T, R) matrix of the gates: its product with the rows' results adds up a token's."""
        return Layout(
            self.t_crow, self.t_perm, self.t_perm, None, None, None,
            self.t_crow.shape[0] - 1, self.token.shape[0],
        )  # fmt: skip


class Needs(NamedTuple):
    """Which gradients are asked for."""

    x: bool
    up: bool
    down: bool
    gate: bool
