"""Greedy and drawn tokens, uneven prompts, chunks, ends, and tokens guessed ahead."""

import pytest
import torch
from small_models import drawn_tokens, small_model

from nemotron_blocks.budget import ThinkingBudget
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
    stop = plain.tokens[1][7].item()
    ended = model.generate(PROMPTS, 24, speculative=True, draft=draft, stop=[stop])
    expected = model.generate(PROMPTS, 24, stop=[stop])
    assert [t.tolist() for t in ended.tokens] == [t.tolist() for t in expected.tokens]


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


def test_wrong_arguments_are_named():
    model = small_model("M")
    for prompts, error, message in (
        ([], ValueError, "prompts: expected at least one"),
        ([[1], []], ValueError, "prompts: expected at least one, each of at least one token"),
        (torch.tensor([1, 2]), TypeError, r"prompts: expected \(B, L\) int64"),
        ([[99]], ValueError, "tokens: expected 0 to 60"),
    ):
        with pytest.raises(error, match=message):
            model.generate(prompts, 3)
    with pytest.raises(ValueError, match="prefill: expected at least 1"):
        model.generate([[1]], 3, prefill=0)
    with pytest.raises(ValueError, match="max_new_tokens: expected at least 0, got -1"):
        model.generate([[1]], -1)
    with pytest.raises(ValueError, match="model: it predicts no tokens ahead"):
        model.generate([[1]], 3, speculative=True)
    with pytest.raises(ValueError, match="draft: expected at least 1, got 0"):
        speculate(small_model("M/-"), [[1]], 3, draft=0)
