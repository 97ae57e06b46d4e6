from typing import Any

import numpy as np
import pytest
import torch

from nemotron_blocks.budget import ThinkingBudget
from nemotron_blocks.sampling import GREEDY, Sampling, draw

LOGITS = torch.tensor([[2.0, 1.0, 0.5, -1.0], [0.0, 0.0, 3.0, 0.0]])


def test_greedy_takes_the_most_probable():
    assert GREEDY.choose(LOGITS).tolist() == [0, 2]
    assert GREEDY.probabilities(LOGITS).tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]


def test_temperature_sharpens():
    torch.testing.assert_close(Sampling(1.0).probabilities(LOGITS), LOGITS.softmax(-1))
    torch.testing.assert_close(Sampling(0.5).probabilities(LOGITS), (2 * LOGITS).softmax(-1))


def test_top_k_keeps_the_first():
    found = Sampling(1.0, top_k=2).probabilities(LOGITS[:1])
    expected = torch.tensor([[2.0, 1.0]]).softmax(-1)
    torch.testing.assert_close(found[:, :2], expected)
    assert float(found[:, 2:].sum()) == 0
    assert torch.equal(Sampling(1.0, top_k=9).probabilities(LOGITS), LOGITS.softmax(-1))
    two: Any = np.float64(2)
    assert torch.equal(Sampling(1.0, top_k=two).probabilities(LOGITS[:1]), found)
    ties = Sampling(1.0, top_k=2).probabilities(torch.zeros(3, 6))
    assert ties.sort(-1).values.tolist() == 3 * [[0, 0, 0, 0, 0.5, 0.5]]


def test_top_p_keeps_the_fewest_that_have_the_share():
    odds = torch.tensor([[0.5, 0.3, 0.15, 0.05]])
    for share, kept in ((0.4, 1), (0.5, 1), (0.51, 2), (0.8, 2), (0.81, 3), (1.0, 4)):
        found = Sampling(1.0, top_p=share).probabilities(odds.log())
        assert int((found > 0).sum()) == kept, share
        torch.testing.assert_close(found[:, :kept], odds[:, :kept] / odds[:, :kept].sum())


def test_a_share_of_one_leaves_no_token_out():
    """Float32 sums of a large vocabulary are 1 before the last tokens."""
    logits = 3 * torch.randn(131_072, generator=torch.Generator().manual_seed(0))
    whole = Sampling(1.0).probabilities(logits)
    assert torch.equal(Sampling(1.0, top_p=1.0).probabilities(logits), whole)
    ranked = whole.double().sort(descending=True).values
    for share in (0.9, 0.999999):
        kept = int((ranked.cumsum(0) - ranked < share).sum())
        found = Sampling(1.0, top_p=share).probabilities(logits)
        assert int((found > 0).sum()) == kept


def test_draws_have_their_probabilities():
    odds = torch.tensor([0.1, 0.6, 0.3])
    drawn = draw(odds.expand(20_000, 3), torch.Generator().manual_seed(0))
    found = torch.bincount(drawn, minlength=3) / 20_000
    torch.testing.assert_close(found, odds, atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature: expected at least 0"),
        ({"temperature": float("nan")}, "temperature: expected at least 0"),
        ({"top_k": 0}, "top_k: expected at least 1"),
        ({"top_k": float("nan")}, "top_k: expected at least 1 tokens, got nan"),
        ({"top_k": 1.5}, "top_k: expected at least 1 tokens, got 1.5"),
        ({"top_p": 0.0}, r"top_p: expected a share in \(0, 1\]"),
        ({"top_p": 1.1}, r"top_p: expected a share in \(0, 1\]"),
    ],
)
def test_what_is_no_way_to_sample_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


OPEN, CLOSE, LINE, WORD = 1, 2, 3, 7


def said(budget, prompt, proposed):
    budget.start([torch.tensor(prompt)])
    return [int(budget.step(torch.tensor([token]))[0]) for token in proposed]


def budget(limit, grace=500):
    return ThinkingBudget(limit, CLOSE, OPEN, {LINE}, grace)


def test_a_long_thought_ends_behind_the_next_line():
    proposed = [WORD, LINE, WORD, WORD, LINE, WORD, WORD]
    assert said(budget(3), [OPEN], proposed) == [WORD, LINE, WORD, WORD, LINE, CLOSE, WORD]


def test_a_thought_without_lines_ends_after_the_grace():
    assert said(budget(2, grace=2), [OPEN], 7 * [WORD]) == [*4 * [WORD], CLOSE, WORD, WORD]


def test_a_short_thought_is_left_alone():
    proposed = [WORD, CLOSE, *6 * [LINE]]
    assert said(budget(3), [OPEN], proposed) == proposed
    assert said(budget(0), [WORD], 4 * [LINE]) == 4 * [LINE]  # no thought at all


def test_tokens_of_a_thought_in_the_prompt_count():
    assert said(budget(3), [OPEN, WORD, WORD, LINE], [WORD, WORD]) == [CLOSE, WORD]
    assert said(budget(0), [OPEN, CLOSE, LINE], [WORD, LINE, WORD]) == [WORD, LINE, WORD]


def test_a_second_thought_has_a_count_of_its_own():
    proposed = [WORD, CLOSE, OPEN, WORD, LINE, WORD, LINE, WORD]
    expected = [WORD, CLOSE, OPEN, WORD, LINE, CLOSE, LINE, WORD]
    assert said(budget(2), [OPEN], proposed) == expected
