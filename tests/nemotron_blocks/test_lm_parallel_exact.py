"""Loss and every gradient over two processes are those of one, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from lm_parallel import MODELS, agree, gradients, loss_of, mesh_of_all, packed, whole_model
from processes import run_together
from torch.distributed.tensor import DTensor

from nemotron_blocks.parallel import (
    context_parallel,
    expert_parallel,
    mean_gradients,
    piece,
    shard,
    tensor_parallel,
    token_mean,
    whole_row,
)

HERE = ["lm_parallel"]


def _tensor():
    mesh, batch = mesh_of_all(), packed()
    for name in MODELS:
        single = whole_model(name)
        model = tensor_parallel(copy.deepcopy(single), mesh)
        expected = loss_of(single, batch)
        expected.backward()
        loss = loss_of(model, batch)
        loss.backward()
        torch.testing.assert_close(loss, expected)
        norms = [torch.nn.utils.clip_grad_norm_(m.parameters(), 0.01) for m in (single, model)]
        assert isinstance(norms[1], DTensor)
        torch.testing.assert_close(norms[1].full_tensor(), norms[0])
        agree(gradients(model), gradients(single))


def _half(batch, rank=None):
    rank = dist.get_rank() if rank is None else rank
    return type(batch)(*(t.chunk(2)[rank] for t in batch))


def _mean_of_halves(single, batch):
    for rank in range(2):
        (loss_of(single, _half(batch, rank)) / 2).backward()
    return gradients(single)


def _fsdp():
    mesh, batch = mesh_of_all(), packed()
    for name in MODELS:
        single = whole_model(name)
        model = copy.deepcopy(single)
        if dist.get_rank():
            torch.nn.init.zeros_(model.embeddings.weight)  # the first rank's weights count
        model = shard(model, mesh)
        for _ in range(2):
            model.zero_grad()
            loss = loss_of(model, _half(batch))
            loss.backward()
        torch.testing.assert_close(loss, loss_of(single, _half(batch)))
        agree(gradients(model), _mean_of_halves(single, batch))


def _experts():
    mesh, batch = mesh_of_all(), packed()
    for name in ("experts", "latent"):
        for skewed in (False, True):
            single = whole_model(name)
            if skewed:  # all tokens leave the second rank, whose experts get none
                for bias in single.buffers():
                    bias[:3] = 20
            model = expert_parallel(copy.deepcopy(single), mesh)
            loss = loss_of(model, _half(batch))
            loss.backward()
            torch.testing.assert_close(loss, loss_of(single, _half(batch)))
            mean_gradients(model, mesh)
            expected = _mean_of_halves(single, batch)
            stacks = [g for key, g in expected.items() if key.endswith("experts.up")]
            assert stacks
            assert all(bool(g[4:].any()) != skewed for g in stacks)
            agree(gradients(model), expected)


def _context():
    mesh, batch = mesh_of_all(), packed()
    for name in MODELS:
        for documents in (True, False):
            whole = batch if documents else batch._replace(seq_idx=torch.zeros_like(batch.seq_idx))
            single = whole_model(name)
            expected = loss_of(single, whole)
            expected.backward()
            model = context_parallel(whole_model(name), mesh)
            own = type(batch)(*(piece(t, mesh) for t in whole))
            loss = loss_of(
                model, own, lambda loss, targets: token_mean(loss, targets, mesh),
                lambda x: whole_row(x, mesh), lambda x: piece(x, mesh),
            )  # fmt: skip
            loss.backward()
            mean_gradients(model, mesh)
            both = loss.detach().clone()
            dist.all_reduce(both)
            torch.testing.assert_close(both / 2, expected.detach())
            agree(gradients(model), gradients(single))


@pytest.mark.parametrize("kind", [_tensor, _fsdp, _experts, _context])
def test_two_processes_give_the_gradients_of_one(kind, tmp_path):
    run_together(kind, 2, tmp_path, preload=HERE)
