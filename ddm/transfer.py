"""From unknowns to local unknowns and back: what tells AS, RAS and their symmetric forms apart.

    M = sum_i R_i^T V_i A_i^-1 W_i R_i

with diagonal V_i and W_i: the identity, the owned unknowns (ones and zeros), or the partition of
unity D_i with `sum_i R_i^T D_i R_i = I`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddm.partition import Decomposition
from sparsetorch import CSRTensor, Pattern

Form = Literal["restricted", "additive", "symmetric"]
WEIGHTS: dict[str, tuple[str, str]] = {
    "restricted": ("owned", "all"),
    "additive": ("all", "all"),
    "symmetric": ("shared", "shared"),
}
"""V and W of each form."""


@dataclass(frozen=True)
class Transfer:
    """Restriction to all subdomains and prolongation from them, with the weights of a form.

    Made by `transfer`. Both are differentiable in their argument.
    """

    form: str
    node: Tensor
    owner_local: Tensor
    own: Tensor
    shared: Tensor
    sum: Pattern

    def restrict(self, r: Tensor, transpose: bool = False) -> Tensor:
        """`W_i R_i r`, or `V_i R_i r` with `transpose`: (n, k) -> (N, k)."""
        local = r.index_select(0, self.node)
        return self._weighted(WEIGHTS[self.form][0 if transpose else 1], local)

    def prolong(self, z: Tensor, transpose: bool = False) -> Tensor:
        """`sum_i R_i^T V_i z_i`, or with W_i: (N, k) -> (n, k)."""
        weights = WEIGHTS[self.form][1 if transpose else 0]
        if weights == "owned":  # each unknown has one owner
            return z.index_select(0, self.owner_local)
        z = self._weighted(weights, z)
        return CSRTensor(self.sum, z.new_ones(self.sum.nnz)) @ z

    def _weighted(self, weights: str, local: Tensor) -> Tensor:
        if weights == "all":
            return local
        factor = self.own if weights == "owned" else self.shared
        return local * factor.to(local.dtype)[:, None]


def transfer(
    decomposition: Decomposition, form: str = "restricted", device: torch.device | str | None = None
) -> Transfer:
    """The transfer of a form.

    Raises:
        ValueError: another `form`.
    """
    if form not in WEIGHTS:
        raise ValueError(f"form: expected one of {sorted(WEIGHTS)}, got {form!r}")
    d = decomposition
    owner_local = np.empty(d.n, dtype=np.int64)
    owner_local[d.node[d.own]] = np.flatnonzero(d.own)
    crow = np.concatenate([[0], np.cumsum(d.multiplicity)])
    col = np.argsort(d.node, kind="stable")
    pattern = Pattern.trusted(torch.from_numpy(crow), torch.from_numpy(col), (d.n, len(d.node)))

    def tensor(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x).to(device)

    return Transfer(
        form=form,
        node=tensor(d.node),
        owner_local=tensor(owner_local),
        own=tensor(d.own),
        shared=tensor(1.0 / d.multiplicity[d.node]),
        sum=pattern if device is None else pattern.to(device),
    )
