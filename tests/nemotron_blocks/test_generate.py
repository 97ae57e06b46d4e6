"""Greedy and drawn tokens, uneven prompts, chunks, ends, and tokens guessed ahead."""

from typing import Any

import pytest
import torch
from small_models import drawn_tokens, small_model

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.cache import Cache
from nemotron_blocks.generate import stream
from nemotron_blocks.speculative import speculate

PROMPTS = [[5, 9, 3, 3, 17], [8], [1, 2, 3, 4, 5, 6, 7, 8, 9]]


def naive(model, prompt, count):
    """Greedy decoding without a cache."""
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("pattern", ["M", "*", "M*-M", "MEM*E"])
def test_a_batch_of_uneven_prompts_says_what_each_would_alone(pattern):
    model = small_model(pattern)
    expected = [naive(model, prompt, 10) for prompt in PROMPTS]
    for prefill in (2048, 3, 1):
        found = model.generate(PROMPTS, 10, prefill=prefill)
        assert [new.tolist() for new in found.tokens] == expected
    assert found.per_pass == 1.0
    assert model.generate(PROMPTS, 1).per_pass == 0.0


def test_a_stop_ends_its_own_sequence():
    model = small_model("M*-M")
    whole = [new.tolist() for new in model.generate(PROMPTS, 12).tokens]
    stop = whole[0][4]
    found = [new.tolist() for new in model.generate(PROMPTS, 12, stop=[stop]).tokens]
    for plain, ended in zip(whole, found):
        length = plain.index(stop) + 1 if stop in plain else 12
        assert ended == plain[:length]
    steps = list(stream(model, [PROMPTS[0]], 12, stop=[stop]))
    assert len(steps) == len(found[0])
    assert [len(new) for new in model.generate(PROMPTS, 0).tokens] == [0, 0, 0]


def test_drawn_tokens_depend_on_the_generator_alone():
    model = small_model("M*-M")
    prompts = drawn_tokens(3, 6)

    def drawn(seed):
        generator = torch.Generator().manual_seed(seed)
        return torch.stack(model.generate(prompts, 8, temperature=1.0, generator=generator).tokens)

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    greedy = torch.stack(model.generate(prompts, 8).tokens)
    nucleus = model.generate(prompts, 8, temperature=2.0, top_k=1).tokens
    assert torch.equal(torch.stack(nucleus), greedy)


def test_a_default_device_is_not_where_lists_are_read():
    model = small_model("M*-M/*")
    want = [t.tolist() for t in model.generate(PROMPTS, 6).tokens]
    for speculative in (False, True):
        with torch.device("meta"):  # as a GPU would be
            budget = ThinkingBudget(50, close=2, open=1, newlines=(7,))
            found = model.generate(PROMPTS, 6, stop=[60], budget=budget, speculative=speculative)
        assert [t.tolist() for t in found.tokens] == want


def test_a_budget_closes_thoughts_of_a_batch():
    model = small_model("M*-M")
    free = torch.stack(model.generate([[1, 9], [1, 4, 4]], 20).tokens)
    budget = ThinkingBudget(3, close=2, open=1, newlines=(), grace=2)
    found = torch.stack(model.generate([[1, 9], [1, 4, 4]], 20, budget=budget).tokens)
    assert not bool((free[:, :5] == 2).any())
    assert found[0].tolist()[:5] == [*free[0, :4].tolist(), 2]  # the prompt's count, too
    assert found[1].tolist()[:4] == [*free[1, :3].tolist(), 2]


@pytest.mark.parametrize("pattern", ["M*-M/*-", "MEM*E/*E/*E", "M/-"])
@pytest.mark.parametrize("draft", [1, 2, 5])
def test_speculative_greedy_is_plain_greedy(pattern, draft):
    model = small_model(pattern)
    plain = model.generate(PROMPTS, 24)
    fast = model.generate(PROMPTS, 24, speculative=True, draft=draft)
    assert [t.tolist() for t in fast.tokens] == [t.tolist() for t in plain.tokens]
    assert 1.0 <= fast.per_pass <= draft + 1
    for prefill in (1, 3, 8, 9):
        chunks = model.generate(PROMPTS, 24, speculative=True, draft=draft, prefill=prefill)
        assert [t.tolist() for t in chunks.tokens] == [t.tolist() for t in plain.tokens]
    stop = plain.tokens[1][7].item()
    ended = model.generate(PROMPTS, 24, speculative=True, draft=draft, stop=[stop])
    expected = model.generate(PROMPTS, 24, stop=[stop])
    assert [t.tolist() for t in ended.tokens] == [t.tolist() for t in expected.tokens]


@pytest.mark.parametrize("pattern", ["M*-M/*-", "M-/-", "*/*"])
def test_a_wrong_guess_costs_no_pass(pattern):
    model = small_model(pattern)
    lengths: list[int] = []
    model.layers[0].register_forward_hook(lambda *call: lengths.append(call[2].shape[1]))
    found = model.generate([PROMPTS[2]], 30, speculative=True, draft=2, prefill=4)
    assert lengths[:3] == [4, 4, 1]
    assert lengths[3:] == [3] * len(lengths[3:])
    assert found.per_pass == 29 / len(lengths[3:]) < 2


def test_what_drafts_has_room_only_when_it_does(monkeypatch):
    model, caches = small_model("M*/*"), []

    def kept(*arguments):
        caches.append(Cache(model.config, *arguments))
        return caches[-1]

    monkeypatch.setattr(model, "cache", kept)
    model.generate([[1, 2]], 3)
    model.generate([[1, 2]], 3, speculative=True)
    assert [len(cache.ahead) for cache in caches] == [0, 1]


@pytest.mark.parametrize("limit", [0, 2, 5])
def test_a_budget_closes_speculated_thoughts_where_it_closes_plain_ones(limit):
    model = small_model("M*-/*", init_std=0.3)
    prompts = [[1, 9], [1, 4, 4], [7]]
    plain = model.generate(prompts, 24)
    lines = {int(tokens[limit + 1]) for tokens in plain.tokens}

    def closed(speculative: bool) -> list[list[int]]:
        budget = ThinkingBudget(limit, close=2, open=1, newlines=lines, grace=3)
        found = model.generate(prompts, 24, budget=budget, speculative=speculative)
        return [tokens.tolist() for tokens in found.tokens]

    expected = closed(False)
    assert closed(True) == expected
    assert all(2 in tokens for tokens in expected[:2])


def test_guesses_that_are_right_are_kept():
    """A model whose next token depends on the last alone, and whose guesses know the rule."""
    model = small_model("-/-", d_ff=8)
    with torch.no_grad():
        for block in ("layers.0", "mtp.layers.0"):
            model.get_parameter(f"{block}.mixer.down_proj.weight").zero_()  # blocks are left out
        model.embeddings.weight.copy_(torch.randn(61, 32, generator=torch.manual_seed(3)))
        model.lm_head.weight.copy_(model.embeddings.weight.roll(1, dims=0))  # t -> t + 1
        model.get_parameter("mtp.eh_proj.weight").copy_(
            torch.cat([torch.eye(32), torch.zeros(32, 32)], dim=1)
        )
    found = model.generate([[3]], 13, speculative=True, draft=3)
    assert found.tokens[0].tolist() == list(range(4, 17))
    assert found.per_pass == 4.0


def test_drawn_speculative_tokens_have_the_same_distribution():
    torch.manual_seed(0)
    model = small_model("M-/-", vocab_size=5, init_std=0.6)
    prompt, count = [[1, 2]], 3000
    generator = torch.Generator().manual_seed(0)

    def counts(speculative: bool = False):
        seen = torch.zeros(5, 5)
        for _ in range(count // 100):
            found = model.generate(
                100 * prompt, 3, temperature=1.0, generator=generator, speculative=speculative
            )
            for new in found.tokens:
                seen[new[1], new[2]] += 1  # the guess and what follows it
        return seen / count

    plain, fast = counts(), counts(speculative=True)
    assert float((plain - fast).abs().sum()) / 2 < 0.04  # total variation; noise is about 0.03


@pytest.mark.parametrize("speculative", [False, True])
def test_wrong_arguments_are_named(speculative):
    def say(prompts, count: Any = 3, **options):
        return model.generate(prompts, count, speculative=speculative, **options)

    model = small_model("M/-")
    for prompts, error, message in (
        ([], ValueError, "prompts: expected at least one"),
        ([[1], []], ValueError, "prompts: expected at least one, each of at least one token"),
        (torch.tensor([1, 2]), TypeError, r"prompts: expected \(B, L\) int64"),
        ([[99]], ValueError, "tokens: expected 0 to 60"),
        ([[1.7, 2.2]], TypeError, r"prompts: expected integers in prompt 0, .* torch.float32"),
        ([[1], [True]], TypeError, "prompts: expected integers in prompt 1, .* torch.bool"),
        ([[1], ["a"]], TypeError, "prompts: expected integers in prompt 1"),
        ([[[1]]], TypeError, r"prompts: expected integers in prompt 0, .* of shape \(1, 1\)"),
        ([1, 2, 3], TypeError, "prompts: .* got 1 for one; put a single prompt into a list"),
        (7, TypeError, "prompts: expected a list of prompts, .* got 7 for one"),
        ("abc", TypeError, r"prompts: expected numbers of tokens, got 'abc'; \[tokenizer.encode"),
        (["abc"], TypeError, "prompts: expected numbers of tokens, got 'abc'"),
    ):
        with pytest.raises(error, match=message):
            say(prompts)
    for options, error, message in (
        ({"prefill": 0}, ValueError, "prefill: expected at least 1, got 0"),
        ({"count": -1}, ValueError, "max_new_tokens: expected at least 0, got -1"),
        ({"count": -20}, ValueError, "max_new_tokens: expected at least 0, got -20"),
        ({"count": 2.5}, TypeError, "max_new_tokens: expected an integer, got 2.5"),
        ({"stop": 7}, TypeError, r"stop: expected a collection of tokens, got 7; \[7\] is one"),
        ({"stop": torch.tensor(7)}, TypeError, "stop: expected a collection of tokens"),
        ({"stop": [0.5]}, TypeError, "stop: expected an integer, got 0.5"),
    ):
        with pytest.raises(error, match=message):
            say([[1]], **options)
    none = say(PROMPTS, 0)
    assert [new.tolist() for new in none.tokens] == [[], [], []]
    assert none.per_pass == 0.0


def test_what_cannot_speculate_is_named():
    model = small_model("M")
    with pytest.raises(ValueError, match="model: it predicts no tokens ahead"):
        model.generate([[1]], 3, speculative=True)
    with pytest.raises(ValueError, match="draft: expected at least 1, got 0"):
        speculate(small_model("M/-"), [[1]], 3, draft=0)
