import numpy as np
import pytest
import scipy.optimize
import torch

from graphnets.matching import logistic
from graphnets.matching.logistic import LogisticMatcher

G = torch.Generator().manual_seed(0)
FEATURES = torch.randn(400, 3, generator=G) * torch.tensor([1.0, 50.0, 0.01]) + 7
LABELS = FEATURES[:, 0] + torch.randn(400, generator=G) > 8


def minimum(terms, labels, l2):
    """By BFGS, the bias last."""
    sign = np.where(labels, 1, -1)

    def loss(w):
        return np.logaddexp(0, -sign * (terms @ w[:-1] + w[-1])).sum() + l2 / 2 * w[:-1] @ w[:-1]

    def slope(w):
        pull = -sign / (1 + np.exp(sign * (terms @ w[:-1] + w[-1])))
        return np.append(terms.T @ pull + l2 * w[:-1], pull.sum())

    start = np.zeros(terms.shape[1] + 1)
    return scipy.optimize.minimize(loss, start, jac=slope, options={"gtol": 1e-7}).x


@pytest.mark.parametrize("squares", [False, True])
@pytest.mark.parametrize("by", [None, 1])
@pytest.mark.parametrize("rows", [7, 1 << 16])
def test_weights_minimise_the_penalised_loss(monkeypatch, squares, by, rows):
    monkeypatch.setattr(logistic, "ROWS", rows)
    model = LogisticMatcher(3, l2=2.0, squares=squares, by=by).fit(FEATURES, LABELS)
    x = FEATURES.double().numpy()
    z = (x - x.mean(0)) / x.std(0)
    terms = np.concatenate([z, z**2 - 1], 1) if squares else z
    if by is not None:
        terms = np.concatenate([terms, terms * z[:, [by]]], 1)
    weight = minimum(terms, LABELS.numpy(), 2.0)
    assert model.weight.tolist() == pytest.approx(weight.tolist(), abs=1e-5)
    expected = terms @ weight[:-1] + weight[-1]
    assert model(FEATURES).tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_probabilities_have_the_mean_of_the_labels():
    model = LogisticMatcher(3).fit(FEATURES, LABELS)
    assert model(FEATURES).sigmoid().mean() == pytest.approx(float(LABELS.double().mean()))


def test_separable_pairs_have_finite_weights():
    x = torch.arange(20.0)[:, None]
    model = LogisticMatcher(1, l2=1e-6).fit(x, x[:, 0] > 9)
    odds = model(x)
    assert bool(odds.isfinite().all())
    assert torch.equal(odds > 0, x[:, 0] > 9)


def test_features_that_do_not_vary_have_no_say():
    constant = torch.cat([FEATURES, torch.full((400, 1), 3.0)], 1)
    whole = LogisticMatcher(4).fit(constant, LABELS)
    assert torch.allclose(whole(constant), LogisticMatcher(3).fit(FEATURES, LABELS)(FEATURES))


def test_state_is_saved_and_loaded():
    model = LogisticMatcher(3, by=0).fit(FEATURES, LABELS)
    other = LogisticMatcher(3, by=0)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(FEATURES[:0]), torch.zeros(0, dtype=torch.float64))
    assert torch.equal(model(FEATURES), other(FEATURES))


@pytest.mark.parametrize("move", ["meta", "float32", "bfloat16"])
def test_it_stays_where_and_what_it_is_wherever_its_owner_goes(move):
    expected = LogisticMatcher(3).fit(FEATURES, LABELS)(FEATURES)
    matcher, other = LogisticMatcher(3), torch.nn.Linear(2, 2)
    owner = torch.nn.ModuleList([matcher, other])
    owner.to(move if move == "meta" else getattr(torch, move))
    assert other.weight.is_meta or str(other.weight.dtype).endswith(move)
    assert torch.equal(matcher.fit(FEATURES, LABELS)(FEATURES), expected)
    owner.to(move if move == "meta" else getattr(torch, move))
    assert torch.equal(matcher(FEATURES), expected)


def test_a_state_of_other_features_is_refused():
    with pytest.raises(ValueError, match=r"state: expected mean of shape \(2,\), got \(3,\)"):
        LogisticMatcher(2).load_state_dict(LogisticMatcher(3).state_dict())


def test_tensors_elsewhere_are_refused():
    model = LogisticMatcher(3).fit(FEATURES, LABELS)
    for call in (model, lambda there: model.fit(there, LABELS)):
        with pytest.raises(ValueError, match=r"got on meta; take features\.cpu\(\)"):
            call(FEATURES.to("meta"))
    with pytest.raises(ValueError, match=r"got on meta; take labels\.cpu\(\)"):
        model.fit(FEATURES, LABELS.to("meta"))


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="l2: expected a positive number, got 0"):
        LogisticMatcher(3, l2=0)
    with pytest.raises(ValueError, match="by: expected a feature from 0 to 2, got 3"):
        LogisticMatcher(3, by=3)
    with pytest.raises(ValueError, match="labels: expected both sorts, got 0 of 400 matches"):
        LogisticMatcher(3).fit(FEATURES, torch.zeros(400, dtype=torch.bool))
    with pytest.raises(ValueError, match="labels: expected bool"):
        LogisticMatcher(3).fit(FEATURES, LABELS.long())
    with pytest.raises(ValueError, match=r"features: expected shape \(k, 2\), got \(400, 3\)"):
        LogisticMatcher(2).fit(FEATURES, LABELS)
    bad = FEATURES.clone()
    bad[5, 1] = torch.nan
    with pytest.raises(ValueError, match="got nan as feature 1 of pair 5"):
        LogisticMatcher(3)(bad)


def test_a_state_is_taken_whole_and_in_double_precision():
    one, other = LogisticMatcher(2), LogisticMatcher(2)
    single = {name: values.float() for name, values in one.get_extra_state().items()}
    other.set_extra_state(single)
    assert other(torch.zeros(3, 2)).dtype == torch.float64
    other.load_state_dict(one.state_dict())
    assert other.weight is not one.weight
    del single["scale"]
    with pytest.raises(ValueError, match=r"state: expected \['mean', 'scale', 'weight'\], got"):
        other.set_extra_state(single)
