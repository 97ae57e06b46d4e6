"""Language models on a GPU, against the CPU; skipped where there is none."""

import copy
from typing import Any

import pytest
import torch
from lm_training import FAMILIES, Losses, module, trainer, write_texts
from small_models import drawn_tokens, small_model

from nemotron_blocks import step_graph
from nemotron_blocks.lightning import TextData

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: language models are NOT tested on one"
)

PATTERNS = ("M", "*", "M*-M", "MEM*E", "MEM*E/*E")
PROMPTS = [[5, 9, 3, 3, 17], [8], [1, 2, 3, 4, 5, 6, 7, 8, 9]]


def both(pattern: str, **changes: Any):
    """The same model here and there."""
    here = small_model(pattern, **changes)
    return here, copy.deepcopy(here).cuda()


@pytest.mark.parametrize("packed", [False, True], ids=["one document", "packed"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_states_and_every_gradient_are_those_of_the_cpu(pattern, packed):
    tokens = drawn_tokens(2, 37)
    seq_idx = (torch.arange(37) // 11).expand(2, -1) if packed else None
    found = []
    for model in both(pattern):
        device = model.lm_head.weight.device
        given = tokens.to(device), None if seq_idx is None else seq_idx.to(device)
        hidden = model.hidden(*given)
        states = torch.stack([hidden, *model.ahead(hidden, *given)])[:, :, :36]
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
        seen = states + model.lm_head(states).sum(-1, keepdim=True)
        (seen * weights.to(device)).sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        found.append({"states": states.detach()} | gradients)
    for name, want in found[0].items():
        assert want is not None, name
        assert (found[1][name].cpu() - want).norm() <= 1e-4 * want.norm(), name


@pytest.mark.parametrize("pattern", PATTERNS)
def test_decoding_says_the_same(pattern):
    here, there = both(pattern)
    expected = [t.tolist() for t in here.generate(PROMPTS, 16).tokens]
    for prefill in (2048, 3):
        found = there.generate(PROMPTS, 16, prefill=prefill)
        assert [t.tolist() for t in found.tokens] == expected
    if "/" in pattern:
        found = there.generate(PROMPTS, 16, speculative=True, draft=2)
        assert [t.tolist() for t in found.tokens] == expected


@pytest.mark.parametrize("speculative", [False, True])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_tokens_are_drawn_with_a_generator_of_either_device(device, speculative):
    _, model = both("MEM*E/*E")
    found = []
    for _ in range(2):
        generator = torch.Generator(device).manual_seed(5)
        said = model.generate(
            PROMPTS, 8, temperature=1.0, generator=generator, speculative=speculative
        )
        found.append([t.tolist() for t in said.tokens])
    assert found[0] == found[1]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_replayed_graphs_say_the_same(pattern, monkeypatch):
    monkeypatch.setattr(step_graph, "REACH", 8)  # several recordings
    here, there = both(pattern)
    for prompts in (PROMPTS, PROMPTS[2:]):
        expected = [t.tolist() for t in here.generate(prompts, 16).tokens]
        found = there.generate(prompts, 16, cuda_graph=True)
        assert [t.tolist() for t in found.tokens] == expected


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_cache_goes_on_where_the_tokens_ended(pattern):
    _, model = both(pattern)
    tokens = drawn_tokens(2, 19).cuda()
    with torch.no_grad():
        whole = model(tokens)
        for steps in ((19,), (1,) * 19, (7, 1, 1, 10)):
            cache = model.cache(2, 19)
            parts = [model(part, cache=cache) for part in tokens.split(steps, dim=1)]
            torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("pattern", ["M", "*", "M*-M"])  # rounding may choose other experts
def test_half_precision_is_near(pattern, dtype):
    here, there = both(pattern)
    tokens = drawn_tokens(2, 64)
    with torch.no_grad():
        want = here(tokens)
        got = there.to(dtype)(tokens.cuda())
    assert (got.cpu().float() - want).norm() < 0.1 * want.norm()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_is_that_of_the_cpu(family, precision, tmp_path):
    texts = write_texts(tmp_path, 60, length=48, batch=4, validation=0.2)
    values = []
    for accelerator in ("cpu", "cuda"):
        losses = Losses()
        kind = "32-true" if accelerator == "cpu" else precision
        made = trainer(tmp_path, 8, losses, accelerator=accelerator, devices=1, precision=kind)
        made.fit(module(family), TextData(**texts))
        values.append(torch.tensor(losses.values))
    tolerance = 1e-3 if precision == "32-true" else 5e-2
    torch.testing.assert_close(values[1], values[0], rtol=tolerance, atol=tolerance)
