"""Which experts each token goes to, and with what weight: a sigmoid router with a choosing bias.

T: tokens, D: d_model, E: experts, K: experts of a token
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import linear

from nemotron_blocks.balance import Load, load_statistics, update_bias
from sparsetorch import CSRTensor, Pattern
from sparsetorch_kernels import as_given


@dataclass(frozen=True)
class Routing:
    """Where the tokens of one pass go.

    Attributes:
        expert: (T, K) int64, the experts of each token, rising.
        gate: (T, K) their weights; differentiable.
        scores: (T, E) sigmoids of the logits, before any choice; differentiable.
    """

    expert: Tensor
    gate: Tensor
    scores: Tensor

    @cached_property
    def matrix(self) -> CSRTensor:
        """The (T, E) sparse matrix of the gates, K in each row. Compiled code cannot make it."""
        (n_tokens, k), n_experts = self.expert.shape, self.scores.shape[1]
        dtype = torch.int32 if n_tokens * k < 2**31 else torch.int64
        crow = torch.arange(n_tokens + 1, dtype=dtype, device=self.expert.device) * k
        col = self.expert.flatten().to(dtype)
        pattern = Pattern.trusted(crow, col, (n_tokens, n_experts))
        return CSRTensor(pattern, self.gate.flatten())

    @property
    def counts(self) -> Tensor:
        """(E,) int64, how many tokens each expert gets."""
        zeros = torch.zeros(self.scores.shape[1], dtype=torch.int64, device=self.expert.device)
        return zeros.scatter_add(0, self.expert.flatten(), torch.ones_like(self.expert.flatten()))

    @property
    def load(self) -> Load:
        """How evenly the tokens are spread."""
        return load_statistics(self.counts)


class Router(nn.Module):
    """Chooses the K experts of largest s + b, weighted by s = sigmoid(W x) over their sum.

    The bias b takes no part in weights and has no gradient: `update_bias` moves it after each step
    so that loads even out (Wang et al., arXiv:2408.15664). With `n_group` > 1 a token's experts
    come from the `topk_group` groups whose two best experts have the largest sum (DeepSeek-V3,
    arXiv:2412.19437, section 2.1.2). Logits, scores and weights are float32 at least, under
    autocast too, and the bias stays float32 when the module is converted: bfloat16 would lose its
    small steps.

    Args:
        d_model: width of the tokens.
        n_experts: E.
        top_k: K.
        scale: factor of the weights.
        n_group, topk_group: groups of experts, and how many of them a token may go to.
        norm_topk: whether the K weights are divided by their sum.

    Raises:
        ValueError: a number does not fit; the message names it.
    """

    e_score_correction_bias: Tensor

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        top_k: int,
        scale: float = 1.0,
        n_group: int = 1,
        topk_group: int = 1,
        norm_topk: bool = True,
    ) -> None:
        super().__init__()
        check_choice(n_experts, top_k, n_group, topk_group)
        self.n_experts, self.top_k, self.scale = n_experts, top_k, scale
        self.n_group, self.topk_group, self.norm_topk = n_group, topk_group, norm_topk
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        self.register_buffer("e_score_correction_bias", torch.zeros(n_experts))
        # Not a buffer: distributed training would overwrite each process's counts with one's.
        self._counts: Tensor | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights normal with 0.02, the bias and the counts zero."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.e_score_correction_bias)
        self._counts = None

    def forward(self, x: Tensor) -> Routing:
        """Tokens (..., D) -> the routing of all of them; in training their number is counted."""
        x_TD = x.reshape(-1, x.shape[-1])
        with as_given(x):
            wide = torch.promote_types(x.dtype, torch.float32)
            scores_TE = linear(x_TD.to(wide), self.weight.to(wide)).sigmoid()
            expert_TK = self._choose(scores_TE.detach())
            gate_TK = scores_TE.gather(1, expert_TK)
            if self.norm_topk:
                gate_TK = gate_TK / (gate_TK.sum(1, keepdim=True) + 1e-20)
        routing = Routing(expert_TK, gate_TK * self.scale, scores_TE)
        if self.training and torch.is_grad_enabled():
            counts = routing.counts
            self._counts = counts if self._counts is None else self._counts + counts
        return routing

    def _choose(self, scores_TE: Tensor) -> Tensor:
        """The experts (T, K) of each token, rising."""
        choice_TE = scores_TE + self.e_score_correction_bias
        if self.n_group > 1:
            groups_TGE = choice_TE.unflatten(1, (self.n_group, -1))
            best = groups_TGE.topk(min(2, groups_TGE.shape[2]), sorted=False).values.sum(2)
            closed = torch.ones_like(best, dtype=torch.bool)
            closed.scatter_(1, best.topk(self.topk_group, sorted=False).indices, False)
            choice_TE = groups_TGE.masked_fill(closed[:, :, None], -torch.inf).flatten(1)
        return choice_TE.topk(self.top_k, sorted=False).indices.sort(1).values

    @property
    def counts(self) -> Tensor | None:
        """(E,) tokens in training since the last update of the bias, of this process; or None.

        Passes under `torch.no_grad` do not count, and with checkpointing each token counts twice,
        which changes neither the update nor any statistic.
        """
        return self._counts

    def forget_counts(self) -> None:
        """Count anew, as after an update."""
        self._counts = None

    def update_bias(self, rate: float = 1e-3, group: dist.ProcessGroup | None = None) -> Load:
        """Move this router's bias towards even loads: see `update_biases`.

        Raises:
            RuntimeError: no token was counted since the last update.
        """
        return update_biases(self, rate, group)[""]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        bias = self.e_score_correction_bias
        super()._apply(fn, recurse)
        moved = self.e_score_correction_bias
        if moved.dtype != bias.dtype:
            self.e_score_correction_bias = (
                torch.empty_like(moved, dtype=bias.dtype)
                if bias.is_meta or moved.is_meta
                else bias.to(moved.device)
            )
        return self

    def extra_repr(self) -> str:
        """The sizes, for `print(module)`."""
        groups = f", {self.topk_group} of {self.n_group} groups" if self.n_group > 1 else ""
        return f"{self.top_k} of {self.n_experts} experts{groups}, scale={self.scale}"


@torch.no_grad()
def update_biases(
    model: nn.Module, rate: float = 1e-3, group: dist.ProcessGroup | None = None
) -> dict[str, Load]:
    """Move the biases of all routers in a model towards even loads, and count anew.

    b += rate * sign(mean load - load), to be called after each optimizer step. The loads are added
    up over the processes of `group`, by default all where `torch.distributed` is initialized, in
    one message, so that biases stay the same on each; every process has to call this. A router that
    saw no token keeps its bias. Returns the statistics of the loads before the update, by the
    routers' names in the model.

    Raises:
        RuntimeError: no router has counted a token in training since the last update.
    """
    routers = {name: m for name, m in model.named_modules() if isinstance(m, Router)}
    if not routers:
        return {}
    if all(router.counts is None for router in routers.values()):
        raise RuntimeError(
            "update_biases: no token was routed in training since the last update; call it after "
            "forward and backward of each step, with the model in training mode"
        )
    counted = [_counts(router) for router in routers.values()]
    together = torch.cat(counted)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(together, group=group)
    loads = {}
    for (name, router), counts in zip(routers.items(), together.split([len(c) for c in counted])):
        update_bias(router.e_score_correction_bias, counts, rate)
        router.forget_counts()
        loads[name] = load_statistics(counts)
    return loads


def _counts(router: Router) -> Tensor:
    bias = router.e_score_correction_bias
    if router.counts is None:
        return torch.zeros_like(bias, dtype=torch.int64)
    return router.counts.to(bias.device)


@contextmanager
def collect_routings(model: nn.Module) -> Iterator[list[Routing]]:
    """The routings of all routers in a model, in the order in which they ran, as they run.

    For losses and statistics that need them: `with collect_routings(model) as routings:` around the
    forward pass; behind it the list holds one `Routing` a pass of each router.
    """
    found: list[Routing] = []

    def keep(_module: nn.Module, _args: Any, routing: Routing) -> None:
        found.append(routing)

    routers = [module for module in model.modules() if isinstance(module, Router)]
    hooks = [router.register_forward_hook(keep) for router in routers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def check_choice(n_experts: int, top_k: int, n_group: int, topk_group: int) -> None:
    """Raise ValueError, naming the number, unless a token can choose its experts this way."""
    sizes = {"n_experts": n_experts, "top_k": top_k, "n_group": n_group, "topk_group": topk_group}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
    if n_experts % n_group:
        raise ValueError(f"n_group: expected a divisor of {n_experts} experts, got {n_group}")
    if topk_group > n_group:
        raise ValueError(f"topk_group: expected at most the {n_group} groups, got {topk_group}")
    if top_k > (reachable := n_experts // n_group * topk_group):
        raise ValueError(
            f"top_k: expected at most the {reachable} experts that a token may go to, got {top_k}"
        )
