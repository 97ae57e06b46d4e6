"""Load statistics and the balance loss against their definitions."""

import math

import pytest
import torch

from nemotron_blocks.balance import load_statistics, sequence_balance_loss, update_bias

B, L, E, K = 3, 7, 6, 2


def scores(seed=0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(B, L, E, generator=generator, dtype=torch.float64).requires_grad_()


def loss_of(tokens: list[torch.Tensor]) -> torch.Tensor:
    """Equations 17 to 20 of arXiv:2412.19437 for the scores of one sequence, in a loop."""
    n, loss = len(tokens), torch.zeros((), dtype=torch.float64)
    for i in range(E):
        f = sum(i in s.topk(K).indices.tolist() for s in tokens) * E / (K * n)
        loss = loss + f * torch.stack([s[i] / s.sum() for s in tokens]).mean()
    return loss


def compare(got: torch.Tensor, want: torch.Tensor, leaf: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    gradients = [torch.autograd.grad(loss, leaf)[0] for loss in (got, want)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-15)


def test_the_balance_loss_is_that_of_a_loop():
    s = scores()
    want = torch.stack([loss_of(list(sequence)) for sequence in s]).mean()
    compare(sequence_balance_loss(s, K), want, s)


def test_each_packed_document_is_a_sequence():
    s = scores()
    seq_idx = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0] * 7, [0, 1, 2, 2, 2, 5, 5]])
    documents = [
        loss_of(list(s[b][seq_idx[b] == i])) for b in range(B) for i in seq_idx[b].unique()
    ]
    assert len(documents) == 2 + 1 + 4
    compare(sequence_balance_loss(s, K, seq_idx), torch.stack(documents).mean(), s)


def test_masked_tokens_and_sequences_without_tokens_do_not_count():
    s = scores()
    mask = torch.ones(B, L, dtype=torch.bool)
    mask[0, 4:] = False
    mask[1] = False
    want = torch.stack([loss_of(list(s[0, :4])), loss_of(list(s[2]))]).mean()
    compare(sequence_balance_loss(s, K, mask_BL=mask), want, s)
    nothing = sequence_balance_loss(s, K, mask_BL=torch.zeros(B, L, dtype=torch.bool))
    assert nothing.item() == 0


def test_even_loads_have_a_loss_of_one_and_a_collapse_of_experts_over_k():
    even = torch.eye(E, dtype=torch.float64).roll(1, 1) + torch.eye(E, dtype=torch.float64)
    assert float(sequence_balance_loss(even[None], K)) == pytest.approx(1.0)
    collapsed = torch.zeros(1, 5, E)
    collapsed[..., :K] = 1.0
    assert float(sequence_balance_loss(collapsed, K)) == pytest.approx(E / K)


def test_statistics_of_loads():
    even = load_statistics(torch.full((8,), 3))
    assert even.max_vio == 0
    assert float(even.entropy) == pytest.approx(1.0)
    one = load_statistics(torch.tensor([0, 5, 0, 0]))
    assert float(one.max_vio) == pytest.approx(3.0)
    assert one.entropy == 0
    some = load_statistics(torch.tensor([6, 2, 4, 0]))
    assert float(some.max_vio) == pytest.approx(1.0)
    entropy = -sum(p * math.log(p) for p in (1 / 2, 1 / 6, 1 / 3)) / math.log(4)
    assert float(some.entropy) == pytest.approx(entropy)
    none = load_statistics(torch.zeros(3, dtype=torch.int64))
    assert none.max_vio == none.entropy == 0


def test_the_bias_of_an_expert_rises_below_the_mean_and_falls_above():
    bias = torch.tensor([0.5, 0.0, -0.5])
    update_bias(bias, torch.tensor([9, 3, 6]), rate=0.125)
    assert bias.tolist() == [0.375, 0.125, -0.5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.rand(L, E), K), r"scores: expected \(B, L, E\), got shape \(7, 6\)"),
        ((torch.rand(B, L, E), E + 1), "top_k: expected 1 to 6"),
        ((torch.rand(B, L, E), K, torch.zeros(B, L - 1)), "seq_idx: expected"),
        ((torch.rand(B, L, E), K, None, torch.ones(B, L)), "mask: expected bool"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        sequence_balance_loss(*arguments)


def test_counts_of_another_length_are_refused():
    with pytest.raises(ValueError, match="counts: expected one for each bias"):
        update_bias(torch.zeros(3), torch.zeros(4))
