"""The same weights give the same numbers in transformers: logits, loss, gradients, decoding."""

import inspect
import os

import pytest
import torch
from small_models import drawn_tokens, small_model

from nemotron_blocks.generate import padded
from nemotron_blocks.loss import next_token_loss
from nemotron_blocks.model import HybridLM
from nemotron_blocks.router import Router

if not os.environ.get("CI"):  # which must have it
    pytest.importorskip("transformers", "5.17", reason="no transformers 5.17: parity is NOT tested")
from transformers import DynamicCache, NemotronHForCausalLM

MODELS = {
    "mamba": ("M", {}),
    "attention": ("*-*", {}),
    "dense": ("M-M*-M-", {}),
    "experts": ("MEM*E", {}),
    "latent": ("M*EME", {"d_latent": 8}),
    "groups": ("M*E", {"n_group": 4, "topk_group": 2}),
    "all kinds": ("M*-EM-E", {}),
}
STEPS = 12


def close(ours, theirs, name=""):
    """To 1e-5 of the largest number, or of 1 where all are smaller."""
    scale = float(theirs.detach().abs().max())
    torch.testing.assert_close(
        ours, theirs, atol=1e-5 * max(scale, 1.0), rtol=0, msg=lambda text: f"{name}: {text}"
    )


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


class TheirSteps:
    """Logits of passes over all tokens so far, the last ones of which are new to the cache."""

    def __init__(self, model):
        self.model, self.cache = model, DynamicCache(config=model.config)

    def __call__(self, tokens, mask):
        if "*" in self.model.config.hybrid_override_pattern:
            named = {_cache_name(self.model): self.cache}
            return self.model(tokens, attention_mask=mask, use_cache=True, **named).logits
        # Its model asks attention how long the cache is: without attention its blocks are called.
        hidden = self.model.model.embeddings(tokens)
        mask = mask if tokens.shape[1] > 1 else None  # of padding, which steps have none of
        for block in self.model.model.layers:
            named = {_cache_name(block): self.cache}
            hidden = block(hidden, attention_mask=mask, use_cache=True, **named)
        return self.model.lm_head(self.model.model.norm_f(hidden))


def _cache_name(module):
    """Releases differ in it."""
    names = inspect.signature(module.forward).parameters
    return next(name for name in ("cache", "past_key_values", "cache_params") if name in names)


PROMPTS = [drawn_tokens(n, seed=n) for n in (9, 4, 7)]


@torch.no_grad()
def test_logits_of_left_padded_prompts_and_of_each_step_behind_them(pair):
    ours, theirs, _ = pair
    step = TheirSteps(theirs.eval())
    tokens, real = padded(PROMPTS, torch.device("cpu"))
    assert real is not None
    cache = ours.cache(len(PROMPTS), tokens.shape[1] + STEPS)
    found, expected = ours(tokens, real, cache), step(tokens, real)
    close(found[real == 1], expected[real == 1], "prompts")
    for k in range(STEPS):
        tokens = found[:, -1:].argmax(-1)
        real = torch.cat([real, real.new_ones(len(PROMPTS), 1)], dim=1)
        found, expected = ours(tokens, cache=cache), step(tokens, real)
        close(found, expected, f"step {k}")


WITH_ATTENTION = [name for name, (pattern, _) in MODELS.items() if "*" in pattern]


@pytest.mark.parametrize("pair", WITH_ATTENTION, indirect=True)  # it generates by no others
def test_both_generate_the_same_tokens(pair):
    ours, theirs, _ = pair
    theirs.eval()
    tokens, real = padded(PROMPTS, torch.device("cpu"))
    expected = theirs.generate(
        tokens, attention_mask=real, max_new_tokens=STEPS, do_sample=False, pad_token_id=0,
        eos_token_id=None,
    )  # fmt: skip
    found = ours.generate(PROMPTS, STEPS)
    new = expected[:, tokens.shape[1] :]
    assert [each.tolist() for each in found.tokens] == new.tolist()


def test_checkpoints_of_transformers_are_read(pair):
    ours, theirs, folder = pair
    theirs.save_pretrained(folder / "theirs", max_shard_size="20KB")
    found = HybridLM.from_pretrained(folder / "theirs")
    for (name, mine), (_, other) in zip(
        ours.state_dict().items(), found.state_dict().items(), strict=True
    ):
        assert torch.equal(mine, other), name
