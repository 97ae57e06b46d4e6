"""The matchers without a network on real logs: weeks of devices, five folds of users."""

from pathlib import Path

import pytest
import torch

from graphnets.matching.features import PairFeatures
from graphnets.matching.logistic import LogisticMatcher
from graphnets.matching.logs import week_slices
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.products import pair_cosines
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.xdt import load_xdt

XDT = Path(__file__).resolve().parents[4] / "shared" / "data" / "xdt" / "xdt.npz"


@pytest.fixture(scope="module")
def weeks():
    if not XDT.is_file():
        pytest.skip(f"no {XDT}: the real logs are not part of the project")
    return week_slices(load_xdt(XDT), 20)


@pytest.fixture(scope="module")
def features(weeks):
    views = {"domain": TfIdf([0], words=False), "all": TfIdf()}
    return PairFeatures(weeks, views)


def folds(users, seed=0):
    """Whether each device's user is held out, five times; every user once."""
    found = users.unique()
    found = found[torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))]
    return [torch.isin(users, found[fold::5]) for fold in range(5)]


def average_precision(scores, labels):
    hits = labels[scores.argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


def cross_folds(weeks, pairs):
    """Which pairs are to train with and which to test on, of users apart."""
    for held_out in folds(weeks.users):
        yield ~held_out[pairs].any(1), held_out[pairs].all(1)


def test_scores_without_labels(weeks, features):
    pairs = all_pairs(len(weeks))
    labels = same_user(weeks.users, pairs)
    classic = TfIdf(counts="log", power=1).fit(weeks).transform(weeks)
    scores = [
        pair_cosines(classic, pairs),
        pair_cosines(features.views["domain"].vectors, pairs),
        pair_cosines(features.views["domain_expanded_2"].vectors, pairs),
    ]
    precision = torch.tensor(
        [
            [average_precision(score[test], labels[test]) for score in scores]
            for _, test in cross_folds(weeks, pairs)
        ]
    ).mean(0)
    assert precision[2] > precision[1] > precision[0] > 0.5


def test_a_linear_matcher_across_kinds(weeks, features):
    pairs = all_pairs(len(weeks))
    pairs = pairs[weeks.kinds[pairs].diff(dim=1).squeeze(1) != 0]
    labels, values = same_user(weeks.users, pairs), features(pairs)
    cosine = values[:, features.names.index("all_cosine")]
    local = values[:, features.names.index("all_expanded_2_local")]
    found = []
    for train, test in cross_folds(weeks, pairs):
        model = LogisticMatcher(values.shape[1]).fit(values[train], labels[train])
        scores = cosine[test], local[test], model(values[test])
        found.append([average_precision(score, labels[test]) for score in scores])
    precision = torch.tensor(found).mean(0)
    assert precision[2] > precision[1] > 1.5 * precision[0]
