import math

import pytest
import torch

from graphnets.matching.calibration import (
    IsotonicCalibration,
    PlattScaling,
    estimate_prior,
    shift_prior,
)
from graphnets.matching.metrics import average_precision

TRUE, FALSE, DEVIATION = 2.0, -1.0, 1.5  # scores of true and of false pairs are normal


def gaussian(k, share, seed):
    """Scores of k pairs, some true, whose log-odds are linear in the score."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.rand(k, generator=g) < share
    noise = torch.randn(k, generator=g, dtype=torch.float64)
    return torch.where(labels, TRUE, FALSE).double() + DEVIATION * noise, labels


def line(share):
    """Slope and offset of the log-odds of these scores, by Bayes' formula."""
    slope = (TRUE - FALSE) / DEVIATION**2
    return slope, math.log(share / (1 - share)) - slope * (TRUE + FALSE) / 2


def posterior(scores, share):
    slope, offset = line(share)
    return (slope * scores + offset).sigmoid()


@pytest.mark.parametrize("share", [0.25, 0.06])
def test_platt_scaling_finds_the_log_odds_of_gaussians(share):
    scores, labels = gaussian(100_000, share, seed=1)
    platt = PlattScaling.fit(scores, labels)
    assert (platt.slope, platt.offset) == pytest.approx(line(share), rel=0.03)
    torch.testing.assert_close(platt(scores), posterior(scores, share), atol=0.02, rtol=0)
    torch.testing.assert_close(platt.log_odds(scores), platt(scores).logit())


def slopes_of_loss(platt, scores, labels):
    """Derivatives of the cross-entropy to Platt's targets in slope and offset, by autograd."""
    true = int(labels.sum())
    target = torch.where(labels, (true + 1) / (true + 2), 1 / (len(labels) - true + 2)).double()
    beta = torch.tensor([platt.slope, platt.offset], dtype=torch.float64, requires_grad=True)
    p = (beta[0] * scores.double() + beta[1]).sigmoid()
    loss = -(target * p.log() + (1 - target) * (1 - p).log()).sum()
    return torch.autograd.grad(loss, beta)[0]


@pytest.mark.parametrize("k", [2, 3, 10, 500])
def test_platt_scaling_has_the_smallest_loss(k):
    scores, labels = gaussian(k, 0.3, seed=k)
    labels[:2] = torch.tensor([True, False])
    platt = PlattScaling.fit(scores, labels)
    assert float(slopes_of_loss(platt, scores, labels).abs().max()) < 1e-8 * k


def test_scores_that_separate_get_finite_slopes():
    scores = torch.arange(100.0)
    labels = scores >= 60
    platt = PlattScaling.fit(scores, labels)
    assert 0 < platt.slope < 100
    assert float(slopes_of_loss(platt, scores, labels).abs().max()) < 1e-5
    p = platt(scores)
    assert p.dtype == torch.float32
    assert bool(((p > 0.5) == labels).all())
    # with two scores the two targets are met exactly: (60 + 1) / (60 + 2) and 1 / (40 + 2)
    p = PlattScaling.fit(labels.double(), labels)(torch.tensor([0.0, 1.0]).double())
    assert p.tolist() == pytest.approx([1 / 62, 41 / 42])


def test_few_true_pairs_of_huge_scores_need_shorter_steps():
    scores = torch.linspace(0, 15, 10_000, dtype=torch.float64).exp()
    labels = torch.arange(10_000) >= 9998
    platt = PlattScaling.fit(scores, labels)  # whole steps of Newton's method run away here
    slope, offset = slopes_of_loss(platt, scores, labels).tolist()
    assert abs(slope) < 1e-6 * float(scores.max())
    assert abs(offset) < 1e-6


def test_units_of_scores_do_not_matter():
    scores, labels = gaussian(2000, 0.2, seed=4)
    p = PlattScaling.fit(scores, labels)(scores)
    for scale, shift in ((1e-4, 1e3), (1e8, 0.0), (-1.0, 5.0)):
        other = scores * scale + shift
        torch.testing.assert_close(PlattScaling.fit(other, labels)(other), p, rtol=1e-5, atol=1e-8)


def test_equal_scores_get_the_share_of_true_pairs():
    labels = torch.arange(1000) % 10 == 0
    platt = PlattScaling.fit(torch.full((1000,), 0.1), labels)
    assert platt.slope == 0
    assert float(platt(torch.tensor(0.1))) == pytest.approx(0.1, abs=0.002)
    isotonic = IsotonicCalibration.fit(torch.full((1000,), 0.1), labels)
    assert isotonic(torch.tensor([-3.0, 0.1, 8.0])).tolist() == pytest.approx([0.1] * 3)


def pooled(scores, labels):
    """Isotonic regression by its formula: the largest of the smallest means of intervals."""
    distinct = sorted(set(scores.tolist()))
    groups = [labels[scores == s].double() for s in distinct]
    k = len(groups)
    mean = [
        [float(torch.cat(groups[a : b + 1]).mean()) if a <= b else 0.0 for b in range(k)]
        for a in range(k)
    ]
    return [
        max(min(mean[a][b] for b in range(i, k)) for a in range(i + 1)) for i in range(k)
    ], distinct


@pytest.mark.parametrize("k", [2, 3, 12, 63])
def test_isotonic_regression_is_that_of_its_formula(k):
    scores, labels = gaussian(k, 0.4, seed=k)
    labels[:2] = torch.tensor([True, False])
    scores = scores.round(decimals=int(k < 20))
    expected, distinct = pooled(scores, labels)
    isotonic = IsotonicCalibration.fit(scores, labels)
    assert isotonic(torch.tensor(distinct).double()).tolist() == pytest.approx(expected)
    beyond = torch.tensor([distinct[0] - 9, distinct[-1] + 9])
    assert isotonic(beyond).tolist() == pytest.approx([expected[0], expected[-1]])
    assert bool((isotonic(torch.linspace(-5, 5, 200)).diff() >= 0).all())


def test_isotonic_regression_comes_near_the_posterior_of_gaussians():
    scores, labels = gaussian(200_000, 0.25, seed=6)
    error = IsotonicCalibration.fit(scores, labels)(scores) - posterior(scores, 0.25)
    assert float(error.square().mean().sqrt()) < 0.01


@pytest.mark.parametrize(("before", "after"), [(0.25, 0.06), (0.06, 0.25), (0.3, 0.3)])
def test_shifted_probabilities_are_bayes_formula_with_the_other_prior(before, after):
    scores = torch.linspace(-8, 8, 101, dtype=torch.float64)
    shifted = shift_prior(posterior(scores, before), before, after)
    torch.testing.assert_close(shifted, posterior(scores, after), rtol=1e-9, atol=1e-12)
    back = shift_prior(shifted, after, before)
    torch.testing.assert_close(back, posterior(scores, before), rtol=1e-9, atol=1e-12)
    assert shift_prior(torch.tensor([0.0, before, 1.0]), before, after).tolist() == pytest.approx(
        [0, after, 1]
    )


def test_shifting_keeps_order():
    scores, labels = gaussian(500, 0.2, seed=7)
    p = posterior(scores, 0.2)
    assert average_precision(shift_prior(p, 0.2, 0.01), labels) == average_precision(p, labels)
    assert shift_prior(p.float(), 0.2, 0.01).dtype == torch.float32


@pytest.mark.parametrize("share", [0.02, 0.06, 0.5])
def test_the_share_of_true_pairs_is_found_without_labels(share):
    scores, labels = gaussian(100_000, share, seed=8)
    found = estimate_prior(posterior(scores, 0.25), 0.25)
    assert found == pytest.approx(share, abs=0.006)
    calibrated = shift_prior(posterior(scores, 0.25), 0.25, found)
    assert float(calibrated.mean()) == pytest.approx(found, rel=1e-9)  # EM would stay there
    assert float(calibrated.mean()) == pytest.approx(float(labels.double().mean()), abs=0.006)


@pytest.mark.parametrize("k", [1, 7, 300])
def test_the_estimated_share_is_where_em_ends(k):
    p = posterior(gaussian(k, 0.4, seed=k)[0], 0.25)
    share = 0.25
    for _ in range(5000):
        share = float(shift_prior(p, 0.25, min(max(share, 1e-12), 1 - 1e-12)).mean())
    assert estimate_prior(p, 0.25) == pytest.approx(share, abs=1e-8)


def test_shares_at_the_ends():
    assert estimate_prior(torch.zeros(5), 0.3) == pytest.approx(0, abs=1e-12)
    assert estimate_prior(torch.ones(5), 0.3) == pytest.approx(1, abs=1e-12)
    certain = torch.tensor([0.0, 1.0, 0.0, 0.0])
    assert estimate_prior(certain, 0.3) == pytest.approx(0.25)
    shift_prior(certain, 0.3, estimate_prior(torch.ones(5), 0.3))  # an end is a prior, too


@pytest.mark.parametrize("fit", [PlattScaling.fit, IsotonicCalibration.fit])
def test_wrong_pairs_are_refused(fit):
    for labels in ([True, True], [False, False]):
        with pytest.raises(ValueError, match="labels: expected true and false pairs"):
            fit(torch.zeros(2), torch.tensor(labels))
    with pytest.raises(ValueError, match="got 0 true ones of 0"):
        fit(torch.zeros(0), torch.zeros(0) > 0)
    with pytest.raises(ValueError, match=r"scores: .*infinite"):
        fit(torch.tensor([0, torch.inf]), torch.tensor([True, False]))
    with pytest.raises(TypeError, match="labels: expected bool"):
        fit(torch.zeros(2), torch.tensor([1, 0]))


def test_wrong_probabilities_are_refused():
    for p in ([0.2, 1.5], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="probabilities: expected numbers from 0 to 1"):
            shift_prior(torch.tensor(p), 0.2, 0.1)
        with pytest.raises(ValueError, match="probabilities: expected numbers from 0 to 1"):
            estimate_prior(torch.tensor(p), 0.2)
    with pytest.raises(TypeError, match="probabilities: expected floating point"):
        shift_prior(torch.tensor([1, 0]), 0.2, 0.1)
    for wrong in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="prior_from: expected a share"):
            shift_prior(torch.tensor([0.5]), wrong, 0.1)
        with pytest.raises(ValueError, match="prior_to: expected a share"):
            shift_prior(torch.tensor([0.5]), 0.1, wrong)
    with pytest.raises(ValueError, match="at least one pair"):
        estimate_prior(torch.zeros(0), 0.3)
