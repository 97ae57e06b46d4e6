"""The loss of MG-GNN and the one before it, as published.

    mggnn     <softmax(z), z> + gamma tr(P^T A P) / tr(P_0^T A P_0), z_k = (max_j ||T^k u_j||)^(1/k)
              for k = 1 .. 10, 100 columns u_j uniform in (0, 1), gamma = 5
    mloras    max_j ||T^K u_j|| for K = 4, 500 Gaussian columns u_j

with columns of unit 2-norm. Taghibakhshi et al. (2023), section 4.3, and (2022), section 4.2;
numbers as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ddm.losses import coarse_energy, random_vectors, stochastic_norm
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor


@dataclass(frozen=True)
class PublishedLoss:
    """A loss of a two-level method; `published_loss` makes those of the papers.

    Attributes:
        kind: "mggnn" or "mloras", see above.
        vectors: number of columns.
        steps: K.
        gamma: weight of the energy of P.
        start: "uniform" or "normal" columns.
        warmup, sharpness: of `ddm.losses.stochastic_norm`; as published 0 and 1.
    """

    kind: Literal["mggnn", "mloras"] = "mggnn"
    vectors: int = 100
    steps: int = 10
    gamma: float = 5.0
    start: str = "uniform"
    warmup: int = 0
    sharpness: float = 1.0

    def __call__(
        self, method: Schwarz, P0: CSRTensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss, a scalar, of a two-level method with new columns; P0 (n, S)."""
        A, P = method.A, method.P
        assert P is not None
        u = random_vectors(
            A.shape[0], self.vectors, kind=self.start, generator=generator, dtype=A.dtype
        ).to(A.device)
        if self.kind == "mloras":
            loss = worst_error(method.propagate, u, self.steps)
        else:
            loss = stochastic_norm(
                method.propagate,
                u,
                steps=self.steps,
                warmup=self.warmup,
                sharpness=self.sharpness,
            )
        return loss + self.gamma * coarse_energy(A, P, P0) if self.gamma else loss


LOSSES = {
    "mggnn": PublishedLoss(),
    "mloras": PublishedLoss("mloras", vectors=500, steps=4, gamma=0.0, start="normal"),
}


def worst_error(propagate: Callable[[Tensor], Tensor], vectors: Tensor, steps: int) -> Tensor:
    """`max_j ||T^K u_j||_2` for columns u_j of `vectors` (n, m) and K = `steps`: a scalar."""
    e = vectors
    for _ in range(steps):
        e = propagate(e)
    return e.norm(dim=0).amax()
