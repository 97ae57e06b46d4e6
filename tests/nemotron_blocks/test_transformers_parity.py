"""The same weights give the same numbers in transformers: logits, loss, gradients, decoding."""

import os

import pytest
import torch
from small_models import drawn_tokens, small_model

from nemotron_blocks.loss import next_token_loss
from nemotron_blocks.model import HybridLM
from nemotron_blocks.router import Router

if not os.environ.get("CI"):  # which must have it
    pytest.importorskip("transformers", "5.3", reason="no transformers 5.3: parity is NOT tested")
from transformers import NemotronHForCausalLM

MODELS = {
    "mamba": ("M", {}),
    "attention": ("*-*", {}),
    "dense": ("M-M*-M-", {}),
    "experts": ("MEM*E", {}),
    "latent": ("M*EME", {"d_latent": 8}),
    "groups": ("M*E", {"n_group": 4, "topk_group": 2}),
}


def close(ours, theirs, name=""):
    scale = float(theirs.abs().max())
    torch.testing.assert_close(ours, theirs, atol=1e-5 * max(scale, 1.0), rtol=0, msg=name or None)


@pytest.fixture(params=MODELS)
def pair(request, tmp_path):
    """Our model, and the one that transformers reads from our checkpoint."""
    pattern, changes = MODELS[request.param]
    ours = small_model(pattern, **changes)
    for module in ours.modules():
        if isinstance(module, Router):
            module.e_score_correction_bias.uniform_(-0.3, 0.3)
    ours.save_pretrained(tmp_path / "ours")
    theirs = NemotronHForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    for block in theirs.model.layers:
        if hasattr(block.mixer, "time_step_limit"):
            # Some releases clamp time steps to time_step_min in a pass, and do not in a step.
            setattr(block.mixer, "time_step_limit", (0.0, float("inf")))  # noqa: B010
    return ours, theirs.train(), tmp_path


def test_logits_loss_and_every_gradient(pair):
    ours, theirs, folder = pair
    tokens = drawn_tokens(2, 21)
    labels = tokens.clone()
    labels[0, :3] = -100
    expected = theirs(tokens, labels=labels, use_cache=False)
    close(ours(tokens), expected.logits)
    targets = torch.cat([labels[:, 1:], labels.new_full((2, 1), -100)], dim=1)
    loss = next_token_loss(
        ours.hidden(tokens).flatten(0, 1), ours.lm_head.weight, targets.flatten()
    )
    close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()

    # Gradients take the way of weights, so that names and stacked experts fit.
    with torch.no_grad():
        for model in (ours, theirs):
            for weight in model.parameters():
                weight.copy_(torch.zeros_like(weight) if weight.grad is None else weight.grad)
    theirs.save_pretrained(folder / "gradients")
    found = HybridLM.from_pretrained(folder / "gradients")
    for (name, mine), (_, other) in zip(ours.named_parameters(), found.named_parameters()):
        close(mine, other, name)


def test_decoding_with_a_cache_and_prompts_of_uneven_length(pair):
    ours, theirs, _ = pair
    if "*" not in ours.config.pattern:
        pytest.skip("transformers generates by models with attention only")
    theirs.eval()
    prompts = [drawn_tokens(n, seed=n).tolist() for n in (9, 4, 7)]
    width = max(map(len, prompts))
    padded = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    expected = theirs.generate(
        padded, attention_mask=mask, max_new_tokens=12, do_sample=False, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip
    found = ours.generate(prompts, 12)
    assert [new.tolist() for new in found.tokens] == expected[:, width:].tolist()


def test_checkpoints_of_transformers_are_read(pair):
    ours, theirs, folder = pair
    theirs.save_pretrained(folder / "theirs", max_shard_size="20KB")
    found = HybridLM.from_pretrained(folder / "theirs")
    for (name, mine), (_, other) in zip(
        ours.state_dict().items(), found.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, other), name
