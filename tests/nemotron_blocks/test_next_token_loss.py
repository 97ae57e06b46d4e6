import pytest
import torch
from torch.nn.functional import cross_entropy

from nemotron_blocks import loss
from nemotron_blocks.loss import IGNORED, next_token_loss


def data(dtype=torch.float64, tokens=11):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(tokens, 6, generator=generator, dtype=dtype).requires_grad_()
    output = torch.randn(9, 6, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(9, (tokens,), generator=generator)
    return hidden, output, targets


@pytest.mark.parametrize("held", [1, 20, 1000])
def test_it_is_the_cross_entropy_of_all_logits(monkeypatch, held):
    monkeypatch.setattr(loss, "LOGITS", held)
    hidden, output, targets = data()
    targets[3] = targets[7] = IGNORED
    expected = cross_entropy(hidden @ output.T, targets)
    wanted = torch.autograd.grad(3 * expected, (hidden, output))
    found = next_token_loss(hidden, output, targets)
    torch.testing.assert_close(found, expected)
    got = torch.autograd.grad(3 * found, (hidden, output))
    for ours, theirs in zip(got, wanted):
        torch.testing.assert_close(ours, theirs)


def test_half_precision_loses_no_more_than_its_logits():
    hidden, output, targets = data(torch.bfloat16, tokens=300)
    found = next_token_loss(hidden, output, targets)
    assert found.dtype == torch.float32
    expected = cross_entropy((hidden @ output.T).float(), targets)
    torch.testing.assert_close(found, expected)
    exact = torch.autograd.grad(
        cross_entropy(hidden.double() @ output.double().T, targets), (hidden, output)
    )
    for ours, theirs in zip(torch.autograd.grad(found, (hidden, output)), exact):
        assert ours.dtype == torch.bfloat16
        assert (ours.double() - theirs.double()).norm() < 0.02 * theirs.double().norm()


@pytest.mark.parametrize("scale", [1.0, 2.0**16])
def test_float16_keeps_gradients_of_a_mean_over_many_tokens(scale):
    """A scale of the loss is there to keep them; GradScaler begins with 2^16."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4500, 8, generator=generator).half().requires_grad_()
    output = torch.randn(300, 8, generator=generator).half().requires_grad_()
    targets = torch.randint(150, (4500,), generator=generator)  # half of them never
    wide = [t.detach().double().requires_grad_() for t in (hidden, output)]
    exact = torch.autograd.grad(scale * cross_entropy(wide[0] @ wide[1].T, targets), wide)
    found = torch.autograd.grad(scale * next_token_loss(hidden, output, targets), (hidden, output))
    for ours, theirs, allowed in zip(found, exact, (2e-2 if scale == 1.0 else 2e-3, 2e-3)):
        assert ours.dtype == torch.float16
        for part in (slice(None), slice(150, None)):
            error = (ours[part].double() - theirs[part]).norm() / theirs[part].norm()
            assert error < allowed


def test_gradients_that_nobody_wants_are_not_made():
    hidden, output, targets = data()
    found = next_token_loss(hidden.detach(), output, targets)
    found.backward()
    assert output.grad is not None
    assert not next_token_loss(hidden.detach(), output.detach(), targets).requires_grad


def test_nothing_to_predict_is_no_loss():
    hidden, output, targets = data()
    found = next_token_loss(hidden, output, torch.full_like(targets, IGNORED))
    (change,) = torch.autograd.grad(found, hidden)
    assert float(found.detach()) == 0
    assert not bool(change.any())
    with pytest.raises(ValueError, match="targets: expected one for each of 11 tokens"):
        next_token_loss(hidden, output, targets[:5])
