"""Loss and every gradient over several processes are those of one, in float64."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
from lm_parallel import (
    MODELS,
    Packed,
    agree,
    check_halves,
    check_pieces,
    loss_of,
    mesh_of,
    packed,
    whole_model,
)
from processes import run_together
from small_models import drawn_tokens, small_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy

from nemotron_blocks.parallel import (
    context_parallel,
    expert_parallel,
    piece,
    shard,
    tensor_parallel,
    whole_row,
)
from nemotron_blocks.parallel.divide import divide


def tensor():
    mesh, batch = mesh_of(2), packed()
    for name in MODELS:
        single = whole_model(name)
        model = tensor_parallel(copy.deepcopy(single), mesh)
        expected, loss = loss_of(single, batch), loss_of(model, batch)
        torch.testing.assert_close(loss, expected)
        expected.backward()
        loss.backward()
        agree(model, single)


def fsdp():
    mesh, batch = mesh_of(2), packed()
    for name in MODELS:
        single = whole_model(name)
        model = copy.deepcopy(single)
        if dist.get_rank():
            torch.nn.init.zeros_(model.embeddings.weight)  # the first rank's weights count
        model = shard(model, mesh)
        for _ in range(2):
            single.zero_grad()
            model.zero_grad()
            check_halves(model, single, batch, mesh)


def experts():
    mesh, batch = mesh_of(2), packed()
    for name in ("experts", "latent"):
        for skewed in (False, True):
            single = whole_model(name)
            if skewed:  # all tokens leave the second rank, whose experts get none
                for bias in single.buffers():
                    bias[:3] = 20
            model = expert_parallel(copy.deepcopy(single), mesh)
            check_halves(model, single, batch, mesh)
            stacks = [w for key, w in single.named_parameters() if key.endswith("experts.up")]
            assert all(bool(w.grad[4:].any()) != skewed for w in stacks if w.grad is not None)


def context():
    mesh, batch = mesh_of(2), packed()
    for name in MODELS:
        for whole in (batch, batch._replace(seq_idx=torch.zeros_like(batch.seq_idx))):
            check_pieces(context_parallel(whole_model(name), mesh), whole_model(name), whole, mesh)
    both = expert_parallel(context_parallel(whole_model("latent"), mesh), mesh)
    check_pieces(both, whole_model("latent"), batch, mesh)
    # Rows of one document each need not say so.
    single, model = whole_model("dense"), context_parallel(whole_model("dense"), mesh)
    with torch.no_grad():
        logits = piece(single(batch.tokens), mesh)
        torch.testing.assert_close(model(piece(batch.tokens, mesh)), logits)


def documents_over_three():
    """A document that spans a whole piece, and one that begins where a piece does."""
    mesh, batch = mesh_of(3), packed(2, 12)
    seq_idx = torch.tensor([[0] * 3 + [1] * 9, [0] * 4 + [1] * 7 + [2]])
    whole = batch._replace(seq_idx=seq_idx)
    check_pieces(context_parallel(whole_model("dense"), mesh), whole_model("dense"), whole, mesh)


def two_dimensions():
    mesh, batch = mesh_of(2, 2), packed()
    data = mesh["data_parallel"]
    single, model = whole_model("latent"), whole_model("latent")
    divide(model, mesh, "weights")
    check_halves(model, single, batch, data)
    single, model = whole_model("latent"), whole_model("latent")
    divide(model, mesh, "tokens")
    check_pieces(model, single, batch, data)


def generation():
    """Every process says what one does, with a cache of its own heads."""
    mesh, tokens = mesh_of(2), packed(1).tokens
    single = whole_model("latent").eval()
    for divided in (tensor_parallel, shard, expert_parallel):
        model = divided(copy.deepcopy(single), mesh)
        with torch.no_grad():
            torch.testing.assert_close(model(tokens), single(tokens))
        for speculative in (False, True):
            expected = single.generate(tokens, 6, speculative=speculative).tokens
            found = model.generate(tokens, 6, speculative=speculative).tokens
            assert [t.tolist() for t in found] == [t.tolist() for t in expected]


def half_precision():
    """By FSDP2's policy, and by autocast, losses are near those of full precision."""
    mesh, batch = mesh_of(2), packed()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    expected = loss_of(whole_model("latent").float(), batch).detach()
    losses = []
    for divided in (shard, expert_parallel):
        losses.append(loss_of(divided(whole_model("latent").float(), mesh, policy), batch))
        losses[-1].backward()
    for divided in (tensor_parallel, expert_parallel):
        model = divided(whole_model("latent").float(), mesh)
        with torch.autocast("cpu", torch.bfloat16):
            losses.append(loss_of(model, batch))
        losses[-1].backward()
    model = context_parallel(whole_model("latent").float(), mesh)
    with torch.autocast("cpu", torch.bfloat16):
        loss = loss_of(model, Packed(*(piece(t, mesh) for t in batch)), mesh)
    loss.backward()
    losses.append(whole_row(loss.detach()[None, None], mesh).mean())
    torch.testing.assert_close(torch.stack(losses).detach(), expected.expand(5), rtol=5e-3, atol=0)


def refusals():
    """What does not fit is named, on every rank."""
    mesh = mesh_of(2)
    for changes, message in (
        ({"n_kv_heads": 1}, "n_kv_heads: expected a multiple of 2, the ranks of tensor parallel"),
        ({"n_groups": 1}, "n_groups: expected a multiple of 2"),
        ({"d_shared": 41}, "d_shared: expected a multiple of 2"),
    ):
        with pytest.raises(ValueError, match=message):
            tensor_parallel(small_model("M*E", **changes), mesh)
    with pytest.raises(ValueError, match=r"n_experts: expected a multiple of 2, .* got 5"):
        expert_parallel(small_model("E", n_experts=5), mesh)
    with pytest.raises(ValueError, match=r"pattern: expected experts .* got 'M'"):
        expert_parallel(small_model("M"), mesh)
    with pytest.raises(ValueError, match="model: its weights are spread over processes already"):
        tensor_parallel(tensor_parallel(small_model("M"), mesh), mesh)
    with pytest.raises(ValueError, match="divide: experts are divided without tensor parallel"):
        divide(small_model("E"), mesh_of(1, 2), "experts")
    rectangle = init_device_mesh("cpu", (2, 1), mesh_dim_names=("a", "b"))
    with pytest.raises(ValueError, match="mesh: expected one dimension, got 2"):
        shard(small_model("M"), rectangle)
    with pytest.raises(ValueError, match=r"x: expected rows of a multiple of 2 tokens, .* got 7"):
        piece(drawn_tokens(1, 7), mesh)

    model, rank = context_parallel(small_model("M"), mesh), dist.get_rank()
    tokens, zeros = drawn_tokens(1, 4), torch.zeros(1, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="cache: context parallel is for training"):
        model.hidden(tokens, cache=model.cache(1, 9))
    for arguments, message in (
        (
            (drawn_tokens(1, 4 + rank), None),
            r"tokens: .* one shape, got \(1, 4\) .*, \(1, 5\) ",
        ),
        (
            (tokens[:, :2], None),
            r"tokens: expected pieces of at least 3, .*, got 2",
        ),
        ((tokens, zeros + 1 - rank), "seq_idx: .* row 0 goes back at token 4"),
    ):
        with pytest.raises(ValueError, match=message):
            model.hidden(arguments[0], arguments[1])


WAYS = [
    (tensor, 2), (fsdp, 2), (experts, 2), (context, 2), (documents_over_three, 3),
    (two_dimensions, 4), (generation, 2), (half_precision, 2), (refusals, 2),
]  # fmt: skip


@pytest.mark.parametrize(("way", "size"), WAYS, ids=[way.__name__ for way, _ in WAYS])
def test_several_processes_do_what_one_does(way, size, tmp_path):
    run_together(way, size, tmp_path, preload=["lm_parallel"])
