"""Facts about the whole model: order, documents, caches, sizes."""

import pytest
import torch
from small_models import drawn_tokens, small_model

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.model import HybridLM
from nemotron_blocks.planner import plan
from nemotron_blocks.presets import PRESETS

PATTERNS = ("M", "*", "M*-M", "MEM*E")


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_token_does_not_see_those_behind_it(pattern):
    model, tokens = small_model(pattern), drawn_tokens(2, 19)
    other = tokens.clone()
    other[:, 11:] = (other[:, 11:] + 1) % 61
    with torch.no_grad():
        before, after = model(tokens), model(other)
    close(before[:, :11], after[:, :11])
    assert not torch.allclose(before[:, 11:], after[:, 11:])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_packed_documents_are_as_if_alone(pattern):
    model = small_model(pattern)
    documents = [drawn_tokens(1, n, seed=n) for n in (5, 1, 13, 8)]
    tokens = torch.cat(documents, dim=1)
    seq_idx = torch.cat([torch.full_like(d, k) for k, d in enumerate(documents)], dim=1)
    with torch.no_grad():
        packed = model(tokens, seq_idx).split([d.shape[1] for d in documents], dim=1)
        for found, document in zip(packed, documents):
            close(found, model(document))


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("steps", [(19,), (1,) * 19, (7, 1, 1, 10), (1, 18)])
def test_a_cache_goes_on_where_the_tokens_ended(pattern, steps):
    model, tokens = small_model(pattern), drawn_tokens(2, 19)
    cache = model.cache(2, 19)
    with torch.no_grad():
        whole = model(tokens)
        parts = [model(part, cache=cache) for part in tokens.split(steps, dim=1)]
    close(torch.cat(parts, dim=1), whole)
    with pytest.raises(ValueError, match="cache: 1 more tokens do not fit, 19 of 19 are used"):
        model(tokens[:, :1], cache=cache)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("cut", [1, 5, 6, 12])
def test_a_cache_may_be_cut_anywhere_in_packed_documents(pattern, cut):
    model, tokens = small_model(pattern), drawn_tokens(1, 14)
    seq_idx = torch.tensor([[0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2, 2, 2]])
    cache = model.cache(1, 16)
    with torch.no_grad():
        first = model(tokens[:, :cut], seq_idx[:, :cut], cache)
        second = model(tokens[:, cut:], seq_idx[:, cut:], cache)
        close(torch.cat([first, second], dim=1), model(tokens, seq_idx))
        # What comes next belongs to the last document.
        new = drawn_tokens(1, 2, seed=5)
        alone = torch.cat([tokens[:, 6:], new], dim=1)
        close(model(new, cache=cache), model(alone)[:, -2:])


def test_rewinding_a_cache_forgets_exactly():
    model, tokens = small_model("MEM*E"), drawn_tokens(2, 12)
    cache = model.cache(2, 12)
    with torch.no_grad():
        model(tokens[:, :5], cache=cache)
        states = cache.states()
        model((tokens[:, 5:9] + 3) % 61, cache=cache)
        cache.rewind(5, states)
        close(model(tokens[:, 5:], cache=cache), model(tokens)[:, 5:])
    with pytest.raises(ValueError, match="length: expected 0 to 12, got 13"):
        cache.rewind(13, states)


def test_recomputing_blocks_changes_no_gradient():
    model, tokens = small_model("MEM*-"), drawn_tokens(2, 9)
    gradients = []
    for recompute in (False, True):
        model.recompute(recompute)
        loss = model(tokens).square().mean()
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    for plain, again in zip(*gradients):
        torch.testing.assert_close(plain, again)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_on_the_meta_device_have_the_planned_parameters(name):
    config = HybridConfig.preset(name)
    with torch.device("meta"):
        model = HybridLM(config)
    found = plan(config)
    counts = {
        part: sum(p.numel() for key, p in model.named_parameters() if key.startswith("mtp") == part)
        for part in (False, True)
    }
    assert counts == {False: found.parameters, True: found.mtp_parameters}


def test_tied_embeddings_are_one_parameter():
    model = small_model("M", tie_embeddings=True)
    assert model.lm_head.weight is model.embeddings.weight
    assert sum(p.numel() for p in model.parameters()) == plan(model.config).parameters


def test_wrong_tokens_are_named():
    model = small_model("M*")
    for tokens, documents, error, message in (
        (torch.tensor([[0, 61]]), None, ValueError, "vocab_size is 61, got 0 to 61; is the tok"),
        (torch.tensor([[-1]]), None, ValueError, "tokens: expected 0 to 60"),
        (torch.tensor([1, 2]), None, ValueError, r"tokens: expected \(B, L\), got \(2,\)"),
        (torch.tensor([[1, 2]]).int(), None, TypeError, "tokens: expected int64"),
        (torch.tensor([[1, 2, 3]]), [[0, 1, 0]], ValueError, "row 0 goes back at token 2"),
        (torch.tensor([[1, 2]]), [[0]], ValueError, "seq_idx: expected a document for each"),
        (torch.tensor([[1, 2]]), [[0.0, 1.0]], TypeError, "seq_idx: expected int64"),
    ):
        with pytest.raises(error, match=message):
            model(tokens, None if documents is None else torch.tensor(documents))
    with pytest.raises(ValueError, match="cache: expected one for batch 1, got 2"):
        model(torch.tensor([[1]]), cache=model.cache(2, 4))


def test_what_writes_to_the_residual_stream_starts_smaller():
    torch.manual_seed(0)
    config = HybridConfig(
        "E-E-", d_model=256, vocab_size=64, d_ff=128, n_experts=8, top_k=2, d_expert=128,
        d_shared=128,
    )  # fmt: skip
    for latent, narrow in ((None, "experts.down"), (64, "fc2_latent_proj.weight")):
        model = HybridLM(config.changed(d_latent=latent))
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                ends = name.endswith((narrow, "down_proj.weight"))
                assert float(weight.std()) == pytest.approx(0.01 if ends else 0.02, rel=0.05), name
