"""What a cache keeps, refuses and gives back."""

import pytest
import torch
from small_models import drawn_tokens, small_config, small_model
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from nemotron_blocks.cache import MambaState
from nemotron_blocks.model import HybridLM
from nemotron_blocks.planner import plan
from nemotron_blocks.sequence import Sequence, check_documents

PATTERNS = ("M", "*", "M*-M")


def close(a, b):
    torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_documents_do_not_go_back_from_one_pass_to_the_next():
    model, tokens = small_model("M*"), drawn_tokens(2, 6)
    cache = model.cache(2, 12)
    model(tokens[:, :4], torch.tensor([[0, 0, 0, 0], [0, 0, 1, 1]]), cache)
    message = "seq_idx: documents come one after another, but row 1 goes back from 1, the cache's"
    with pytest.raises(ValueError, match=message):
        model(tokens[:, 4:], torch.zeros(2, 2, dtype=torch.int64), cache)
    assert cache.length == 4
    model(tokens[:, 4:], torch.tensor([[0, 3], [1, 1]]), cache)
    # The first documents behind a plain pass go on with it, or begin.
    plain = model.cache(1, 8)
    model(tokens[:1, :3], cache=plain)
    with pytest.raises(ValueError, match="row 0 goes back from 0"):
        model(tokens[:1, 3:], torch.tensor([[-1, 0, 0]]), plain)
    found = model(tokens[:1, 3:], torch.tensor([[0, 0, 1]]), plain)
    whole = model(tokens[:1], torch.tensor([[0, 0, 0, 0, 0, 1]]))
    close(found, whole[:, 3:])
    # Numbers that were forgotten do not count.
    cache.rewind(0, cache.states())
    model(tokens, cache=cache)
    model(tokens, torch.zeros(2, 6, dtype=torch.int64), cache)


def test_the_order_of_documents_is_read_on_the_cpu_only():
    """A GPU would have to be waited for; meta tensors have nothing that could be read."""
    documents = torch.zeros(1, 3, dtype=torch.int64, device="meta")
    check_documents(documents, documents)
    model = small_model("M*").to("meta")
    cache = model.cache(1, 6)
    for _ in range(2):
        model(documents, documents, cache)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_an_empty_pass_changes_nothing(pattern):
    model, tokens = small_model(pattern), drawn_tokens(1, 7)
    documents = torch.tensor([[0, 0, 1, 1, 1, 1, 1]])
    cache = model.cache(1, 7)
    parts = []
    for part in ([], [0, 1, 2], [], [3], [], [4, 5, 6]):
        parts.append(model(tokens[:, part], documents[:, part], cache))
        assert parts[-1].shape == (1, len(part), 61)
    close(torch.cat(parts, dim=1), model(tokens, documents))


def test_wrong_caches_and_states_are_named():
    model, tokens = small_model("M*M"), drawn_tokens(1, 4)
    for pattern in ("M", "M*MM", "*MM"):
        cache = small_model(pattern).cache(1, 8)
        with pytest.raises(ValueError, match=r"cache: expected one for the blocks 'M.*got one for"):
            model(tokens, cache=cache)
        assert cache.length == 0
    cache = model.cache(1, 8)
    with torch.no_grad():
        model(tokens, cache=cache)
    for states in ([], 3 * cache.states()[:1]):
        with pytest.raises(ValueError, match="states: expected 2, one for each Mamba-2 block, got"):
            cache.rewind(2, states)
    assert cache.length == 4
    first = cache.layers[0]
    assert isinstance(first, MambaState)
    assert cache.states()[0].ssm is first.ssm  # no copies: passes make new ones
    for length in (2, 3, 5):
        with pytest.raises(ValueError, match=f"length: the states behind {length} tokens are not"):
            cache.states(length)


@pytest.mark.parametrize("pattern", PATTERNS)
@torch.no_grad()
def test_a_traced_cache_goes_back_to_any_token_of_its_last_pass(pattern):
    model, tokens = small_model(pattern), drawn_tokens(2, 12)
    documents = torch.tensor([12 * [0], [*7 * [0], *5 * [1]]])
    for seq_idx in (None, documents):
        whole = model(tokens, seq_idx)

        def parts(start, stop, rows=seq_idx):
            return tokens[:, start:stop], None if rows is None else rows[:, start:stop]

        for length in (6, 7, 8, 9, 10):
            cache = model.cache(2, 12)
            model(*parts(0, 5), cache)
            cache.traced = True
            close(model(*parts(5, 10), cache), whole[:, 5:10])
            cache.rewind(length, cache.states(length))
            cache.traced = False
            close(model(*parts(length, 12), cache), whole[:, length:])


def test_gradients_end_at_the_pass():
    """What is kept is constant: the gradient is that of the second pass, and no graph is kept."""
    model, tokens = small_model("M*-M"), drawn_tokens(2, 12)
    cache = model.cache(2, 12)
    losses = []
    for part in tokens.split([7, 4, 1], dim=1):
        losses.append(model(part, cache=cache).square().mean())
        for layer in cache.layers:
            for kept in vars(layer).values() if layer else ():
                assert not getattr(kept, "requires_grad", False)
    found = torch.autograd.grad(torch.stack(losses).sum(), list(model.parameters()))
    expected = [torch.zeros_like(p) for p in model.parameters()]
    for k, part in enumerate(tokens.split([7, 4, 1], dim=1)):
        again = model.cache(2, 12)
        with torch.no_grad():
            for before in tokens.split([7, 4, 1], dim=1)[:k]:
                model(before, cache=again)
        loss = model(part, cache=again).square().mean()
        for total, new in zip(expected, torch.autograd.grad(loss, list(model.parameters()))):
            total += new
    for ours, theirs in zip(found, expected):
        close(ours, theirs)


@pytest.mark.parametrize("pattern", ["MM", "MM*", "M*/*"])
@torch.no_grad()
def test_only_keys_and_values_grow(pattern):
    config = small_config(pattern)
    model = HybridLM(config)
    for capacity in (10, 1000):
        cache = model.cache(3, capacity)
        model(drawn_tokens(3, 4), cache=cache)
        found = plan(config, capacity, batch=3, cache_bytes=4)
        keys = pattern.partition("/")[0].count("*") * 3 * capacity * 2 * 2 * 8 * 4
        assert cache.nbytes() == keys + found.state_cache
        # Documents are kept from the first pass that has some.
        model(drawn_tokens(3, 2), torch.ones(3, 2, dtype=torch.int64), cache)
        documents = 3 * capacity * 8
        assert cache.nbytes() == keys + found.state_cache + documents
        cache.make_ahead()
        assert cache.nbytes() == found.kv_cache + found.state_cache + documents


class NoMemory(RuntimeError):
    """As of a GPU that has none left."""


def fails_once(monkeypatch, module):
    """Have a module's next call fail."""

    def forward(*arguments):
        monkeypatch.undo()
        raise NoMemory

    monkeypatch.setattr(module, "forward", forward)


@pytest.mark.parametrize("failing", ["layers.1", "layers.3", "norm_f", "lm_head"])
@torch.no_grad()
def test_a_pass_that_fails_is_none(failing, monkeypatch):
    """Some blocks have seen its tokens: going on would be silently wrong."""
    model, tokens = small_model("M*-M"), drawn_tokens(2, 12)
    cache = model.cache(2, 12)
    model(tokens[:, :8], cache=cache)
    before = cache.states()
    fails_once(monkeypatch, model.get_submodule(failing))
    with pytest.raises(NoMemory):
        model(tokens[:, 8:], cache=cache)
    assert cache.length == 8
    for use in (lambda: model(tokens[:, 8:], cache=cache), cache.states):
        with pytest.raises(ValueError, match="cache: a pass that failed has changed some of its"):
            use()
    cache.rewind(8, before)
    close(model(tokens[:, 8:], cache=cache), model(tokens)[:, 8:])


@torch.no_grad()
def test_tangents_go_through_a_cache():
    """Without a gradient, too: forward mode has nothing to do with whether that is enabled."""
    model = small_model("*").double()
    cache = model.cache(1, 8)
    model(drawn_tokens(1, 4), cache=cache)
    x, tangent = torch.randn(2, 1, 3, 32, generator=torch.manual_seed(2), dtype=torch.float64)
    sequence = Sequence(4, 3, None, None, x.device)

    def attended(x):
        return model.layers[0](x, sequence, cache.layers[0])

    with sdpa_kernel(SDPBackend.MATH), forward_ad.dual_level():
        found = forward_ad.unpack_dual(attended(forward_ad.make_dual(x, tangent))).tangent
    step = 1e-5
    expected = (attended(x + step * tangent) - attended(x - step * tangent)) / (2 * step)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-7)
