"""Passes of fixed shapes over one token, as CUDA graphs replay them; on a GPU: test_lm_cuda.py."""

from types import SimpleNamespace

import pytest
import torch
from small_models import small_model

from nemotron_blocks import step_graph
from nemotron_blocks.generate import padded, read
from nemotron_blocks.step_graph import FixedStep
from sparsetorch_kernels.csr import backend as csr
from sparsetorch_kernels.moe import products

PROMPTS = [[5, 9, 3, 3, 17], [8], [1, 2, 3, 4, 5, 6, 7, 8, 9]]
PATTERNS = ["M", "*", "M*-M", "MEM*E"]


def after_prompts(model, prompts, capacity):
    """The cache, and the logits behind the prompts."""
    tokens, seq_idx = padded([torch.tensor(prompt) for prompt in prompts], torch.device("cpu"))
    cache = model.cache(len(prompts), capacity)
    with torch.no_grad():
        return cache, read(model, tokens, seq_idx, cache, 2048)


@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[2:]], ids=["uneven", "one"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_fixed_steps_are_plain_ones(pattern, prompts, monkeypatch):
    monkeypatch.setattr(step_graph, "REACH", 4)
    model = small_model(pattern)
    (cache, logits), (fixed, _) = (after_prompts(model, prompts, 20) for _ in range(2))
    step = FixedStep(model, fixed)
    addresses, reaches = [t.data_ptr() for states in step.states for t in states], []
    for _ in range(11):
        new = logits.argmax(-1)
        with torch.no_grad():
            logits = model(new[:, None], cache=cache)[:, -1]
        torch.testing.assert_close(step(new), logits, atol=2e-5, rtol=1e-4)
        reaches.append(step.reach)
    assert reaches == ([12] * 3 + [16] * 4 + [20] * 4 if "*" in pattern else [20] * 11)
    now = [t for layer in fixed.mamba() for t in (layer.conv, layer.ssm)]
    assert [t.data_ptr() for t in now] == addresses
    with pytest.raises(ValueError, match="1 more tokens do not fit, 20 of 20"):
        step(new)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_step_reads_no_number(pattern, monkeypatch):
    """Tensors without contents cannot tell any, as a GPU cannot while a graph is recorded."""
    kernels = SimpleNamespace(
        rows=lambda x, w, ptr: x.new_empty(len(x), w.shape[2]), activate_=lambda h: h
    )
    monkeypatch.setattr(products, "_triton", lambda t: kernels)
    monkeypatch.setattr(
        csr.reference, "spmm", lambda layout, values, x: x.new_empty(1, layout.n_rows, x.shape[2])
    )
    with torch.device("meta"):
        model = small_model(pattern)
        cache = model.cache(3, 20)
        cache.extend(torch.ones(3, 9, dtype=torch.int64), 9)
        logits = FixedStep(model, cache)(torch.zeros(3, dtype=torch.int64))
        assert logits.shape == (3, 61)
        with pytest.raises(RuntimeError, match="meta"):
            int(logits.argmax())


@pytest.mark.parametrize("pattern", PATTERNS)
def test_other_passes_and_rewinding_come_in_between(pattern):
    model = small_model(pattern)
    (cache, _), (fixed, _) = (after_prompts(model, PROMPTS, 30) for _ in range(2))
    step, token = FixedStep(model, fixed), torch.tensor([3, 1, 4])

    def plain(some):
        with torch.no_grad():
            return model(token[:, None], cache=some)[:, -1]

    torch.testing.assert_close(step(token), plain(cache), atol=2e-5, rtol=1e-4)
    length, before = fixed.length, fixed.states()
    first = step(token).clone()
    plain(fixed)
    step(token)
    fixed.rewind(length, before)
    torch.testing.assert_close(step(token), first)
    torch.testing.assert_close(plain(cache), first, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("failing", ["_prepare", "_run"])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_step_that_fails_is_none(pattern, failing, monkeypatch):
    monkeypatch.setattr(step_graph, "REACH", 4)
    model = small_model(pattern)
    (cache, logits), (fixed, _) = (after_prompts(model, PROMPTS, 20) for _ in range(2))
    step, new = FixedStep(model, fixed), logits.argmax(-1)
    before = fixed.states()
    run = step._run

    def fail():
        run()
        raise KeyboardInterrupt

    prepared: list[int] = []
    monkeypatch.setattr(step, failing, fail)
    with pytest.raises(KeyboardInterrupt):
        step(new)
    monkeypatch.setattr(step, "_run", run)
    monkeypatch.setattr(step, "_prepare", lambda: prepared.append(step.reach))
    assert fixed.length == cache.length
    with pytest.raises(ValueError, match="cache: a pass that failed has changed some of its"):
        step(new)
    fixed.rewind(fixed.length, before)
    with torch.no_grad():
        expected = model(new[:, None], cache=cache)[:, -1]
    torch.testing.assert_close(step(new), expected, atol=2e-5, rtol=1e-4)
    # What was not recorded to its end is recorded again.
    assert bool(prepared) == (failing == "_prepare")


def test_what_cannot_be_replayed_is_refused():
    model = small_model("M*")
    with pytest.raises(ValueError, match="cuda_graph: the model is on cpu"):
        model.generate(PROMPTS, 3, cuda_graph=True)
    with pytest.raises(ValueError, match="cache: it is empty"):
        FixedStep(model, model.cache(1, 4))
