"""The loss and gradients of a small model, whole in one process and divided over several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from small_models import drawn_tokens, small_model
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from nemotron_blocks import HybridLM, next_token_loss
from nemotron_blocks.balance import sequence_balance_loss
from nemotron_blocks.batches import targets_ahead
from nemotron_blocks.loss import IGNORED
from nemotron_blocks.parallel import full_state_dict
from nemotron_blocks.router import collect_routings

MODELS: dict[str, dict[str, Any]] = {
    "dense": {"pattern": "M*-M"},
    "tied": {"pattern": "M*", "tie_embeddings": True},
    "experts": {"pattern": "EM*E"},
    "latent": {"pattern": "ME*M-/*E/*E", "d_latent": 12, "n_groups": 4},
}


class Packed(NamedTuple):
    """Rows of packed documents, each (B, L) int64."""

    tokens: Tensor
    targets: Tensor
    seq_idx: Tensor


def whole_model(name: str) -> HybridLM:
    """In float64, always the same, with steps that let states reach far."""
    model = small_model(**MODELS[name]).double()
    with torch.no_grad():
        for weight_name, weight in model.named_parameters():
            if weight_name.endswith("dt_bias"):
                weight -= 2
    return model.train()


def packed(rows: int = 4, length: int = 24) -> Packed:
    """Some documents end in mid-row, one spans a row, and some targets do not count."""
    tokens = drawn_tokens(rows, length)
    begins = torch.zeros(rows, length, dtype=torch.int64)
    for row, places in enumerate([[5, length // 2], [], [3, length // 2 + 1], [length - 2]][:rows]):
        begins[row, places] = 1
    seq_idx = begins.cumsum(1)
    targets = tokens.roll(-1, 1).where(seq_idx.roll(-1, 1) == seq_idx, IGNORED)
    targets[:, -1] = IGNORED
    targets[0, :7] = IGNORED
    return Packed(tokens, targets, seq_idx)


def loss_of(
    model: HybridLM,
    batch: Packed,
    weighted: Callable[[Tensor, Tensor], Tensor] = lambda loss, targets: loss,
    row: Callable[[Tensor], Tensor] = lambda x: x,
    part: Callable[[Tensor], Tensor] = lambda x: x,
) -> Tensor:
    """Next token, tokens ahead and balance; the functions put pieces of rows together."""

    def mean(hidden: Tensor, targets: Tensor) -> Tensor:
        output = model.lm_head.weight
        return weighted(next_token_loss(hidden.flatten(0, 1), output, targets.flatten()), targets)

    with collect_routings(model) as routings:
        hidden = model.hidden(batch.tokens, batch.seq_idx)
        loss = mean(hidden, batch.targets)
        for k, deeper in enumerate(model.ahead(hidden, batch.tokens, batch.seq_idx), 1):
            targets = part(targets_ahead(row(batch.targets), row(batch.seq_idx), k))
            loss = loss + 0.3 * mean(deeper, targets)
    for routing in routings:
        scores = row(routing.scores.unflatten(0, batch.tokens.shape))
        loss = loss + 0.1 * sequence_balance_loss(scores, 2, row(batch.seq_idx))
    return loss


def gradients(model: HybridLM) -> dict[str, Tensor]:
    """Of every parameter, whole, in the order of one process."""
    with torch.no_grad():
        for weight in model.parameters():
            assert weight.grad is not None
            if isinstance(weight, DTensor):
                assert isinstance(weight.grad, DTensor)
                assert weight.grad.placements == weight.placements
            weight.copy_(weight.grad)
    state = full_state_dict(model)
    return {name: state[name] for name, _ in model.named_parameters(remove_duplicate=False)}


def agree(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Every tensor, by name."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).norm() / tensor.norm()
        assert float(error) < 1e-10, (name, float(error))
        assert bool(tensor.any()), name


def mesh_of_all(size: int = 2) -> DeviceMesh:
    """All processes in a line."""
    return init_device_mesh("cpu", (size,))
