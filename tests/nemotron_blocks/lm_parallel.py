"""The loss and gradients of a small model, whole in one process and divided over several."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from small_models import drawn_tokens, small_model
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from nemotron_blocks import HybridLM, next_token_loss
from nemotron_blocks.balance import sequence_balance_loss
from nemotron_blocks.batches import targets_ahead
from nemotron_blocks.loss import IGNORED
from nemotron_blocks.parallel import mean_gradients, piece, token_mean, whole_row
from nemotron_blocks.parallel.weights import whole_tensors
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
    model.recompute(name == "latent")
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


def loss_of(model: HybridLM, batch: Packed, mesh: DeviceMesh | None = None) -> Tensor:
    """Next token, tokens ahead and balance; the mesh is of ranks that have pieces of rows."""

    def mean(hidden: Tensor, targets: Tensor) -> Tensor:
        loss = next_token_loss(hidden.flatten(0, 1), model.lm_head.weight, targets.flatten())
        return token_mean(loss, targets, mesh)

    targets, seq_idx = whole_row(batch.targets, mesh), whole_row(batch.seq_idx, mesh)
    with collect_routings(model) as routings:
        hidden = model.hidden(batch.tokens, batch.seq_idx)
        loss = mean(hidden, batch.targets)
        for k, deeper in enumerate(model.ahead(hidden, batch.tokens, batch.seq_idx), 1):
            loss = loss + 0.3 * mean(deeper, piece(targets_ahead(targets, seq_idx, k), mesh))
    for routing in routings:
        scores = whole_row(routing.scores.unflatten(0, batch.tokens.shape), mesh)
        loss = loss + 0.1 * sequence_balance_loss(scores, 2, seq_idx)
    return loss


def gradients(model: HybridLM) -> dict[str, Tensor]:
    """Of every parameter, whole, in the order of one process."""
    found = {}
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        if isinstance(weight, DTensor):
            assert isinstance(weight.grad, DTensor)
            assert weight.grad.placements == weight.placements, name
        found[name] = weight.grad
    return {name: gradient.clone() for name, gradient in whole_tensors(model, found).items()}


def agree(model: HybridLM, single: HybridLM) -> None:
    """The norm that gradients are clipped to, and every clipped gradient by name."""
    norms = [nn.utils.clip_grad_norm_(m.parameters(), 0.01) for m in (model, single)]
    found = norms[0].full_tensor() if isinstance(norms[0], DTensor) else norms[0]
    torch.testing.assert_close(found, norms[1])
    expected, found = gradients(single), gradients(model)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        error = (found[name] - tensor).norm() / tensor.norm()
        assert float(error) < 1e-10, (name, float(error))


def check_halves(model: HybridLM, single: HybridLM, batch: Packed, mesh: DeviceMesh) -> None:
    """Each rank has half of the rows; gradients are of the mean loss."""
    halves = [Packed(*rows) for rows in zip(*(t.chunk(2) for t in batch))]
    losses = [loss_of(single, half) for half in halves]
    torch.stack(losses).mean().backward()
    loss = loss_of(model, halves[mesh.get_local_rank()])
    torch.testing.assert_close(loss, losses[mesh.get_local_rank()])
    _backward(model, loss, mesh)
    agree(model, single)


def check_pieces(model: HybridLM, single: HybridLM, batch: Packed, mesh: DeviceMesh) -> None:
    """Each rank has a piece of each row; the mean over ranks is the loss of whole rows."""
    expected = loss_of(single, batch)
    expected.backward()
    loss = loss_of(model, Packed(*(piece(t, mesh) for t in batch)), mesh)
    both = loss.detach().clone()
    dist.all_reduce(both, group=mesh.get_group())
    torch.testing.assert_close(both / mesh.size(), expected.detach())
    _backward(model, loss, mesh)
    agree(model, single)


def _backward(model: HybridLM, loss: Tensor, mesh: DeviceMesh) -> None:
    loss.backward()
    if not isinstance(model, FSDPModule):
        mean_gradients(model, mesh)


def mesh_of(*sizes: int) -> DeviceMesh:
    """All processes in a line, or in Lightning's rectangle."""
    names = ("data_parallel", "tensor_parallel") if len(sizes) == 2 else None
    return init_device_mesh("cpu", sizes, mesh_dim_names=names)
