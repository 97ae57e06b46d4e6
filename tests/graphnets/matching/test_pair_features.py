import numpy as np
import pytest
import torch
from random_logs import empty_logs, random_logs

from graphnets.matching.expansion import expanded
from graphnets.matching.features import PairFeatures, default_views
from graphnets.matching.logs import HOUR, WEEK
from graphnets.matching.neighbours import Neighbours
from graphnets.matching.pairs import all_pairs
from graphnets.matching.rhythm import rhythm
from graphnets.matching.tfidf import TfIdf

LOGS = random_logs()
PAIRS = all_pairs(len(LOGS))
FEATURES = PairFeatures(LOGS, k=4, depth=6)
VALUES = FEATURES(PAIRS)


def column(name):
    return VALUES[:, FEATURES.names.index(name)]


def test_each_feature_has_a_name_and_a_finite_value():
    assert VALUES.shape == (len(PAIRS), len(FEATURES.names))
    assert VALUES.dtype == torch.float32
    assert len(set(FEATURES.names)) == len(FEATURES.names)
    assert bool(VALUES.isfinite().all())


def test_cosines_and_crowding_of_a_view():
    vectors = default_views()["words"].fit(LOGS).transform(LOGS)
    scores = (vectors @ vectors.T).toarray()
    np.fill_diagonal(scores, 0)
    kinds = LOGS.kinds.numpy()
    for p, (i, j) in enumerate(PAIRS.tolist()):
        crowd = []
        for a, b in ((i, j), (j, i)):
            others = np.sort(scores[a, (kinds == kinds[b]) & (np.arange(len(kinds)) != a)])
            crowd.append(others[-4:].mean())
        assert column("words_cosine")[p] == pytest.approx(scores[i, j], abs=1e-5)
        assert column("words_local")[p] == pytest.approx(scores[i, j] - np.mean(crowd), abs=1e-5)


def test_rounds_of_expansion_add_views():
    views = {"a": TfIdf([0]), "b": TfIdf()}
    for rounds, count in ((0, 2), (1, 4), (3, 8)):
        features = PairFeatures(LOGS, views, rounds=rounds)
        assert len(features.views) == count
    plain, once = features.views["b"], features.views["b_expanded_1"]
    few = Neighbours(plain.same.index[:, :3], plain.same.score[:, :3])
    assert abs(once.vectors - expanded(plain.vectors, few)).max() < 1e-6
    assert torch.equal(once.other.index.sort(1).values, plain.other.index.sort(1).values)


def test_times_sizes_and_kinds():
    first, second = PAIRS.unbind(1)
    week = (rhythm(LOGS)[first] * rhythm(LOGS)[second]).sum(1)
    assert torch.allclose(column("week_hours"), week)
    assert torch.equal(column("same_kind").bool(), LOGS.kinds[first] == LOGS.kinds[second])
    sizes = LOGS.page.lengths[PAIRS].float().log1p()
    assert torch.allclose(column("shorter"), sizes.amin(1))
    assert torch.allclose(column("longer"), sizes.amax(1))


def test_overlap_and_gap_of_times():
    time = torch.tensor([0, 10 * HOUR, 5 * HOUR, 15 * HOUR, WEEK + 10 * HOUR, WEEK + 20 * HOUR])
    device = torch.tensor([0, 0, 1, 1, 2, 2])
    logs = type(LOGS).from_visits(LOGS.pages, device, device, time, ["a", "b", "c"])
    features = PairFeatures(logs, {"all": TfIdf(min_df=1)})
    values = features(torch.tensor([[0, 1], [0, 2]]))
    overlap = values[:, features.names.index("overlap")]
    gap = values[:, features.names.index("gap")]
    assert overlap.tolist() == pytest.approx([5 / 11, 0])
    assert gap.tolist() == pytest.approx([0, 1])


def test_pairs_do_not_depend_on_other_pairs():
    some = torch.tensor([100, 3, 50])
    assert torch.allclose(FEATURES(PAIRS[some]), VALUES[some], atol=1e-6)
    assert FEATURES(PAIRS[:0]).shape == (0, len(FEATURES.names))


@pytest.mark.parametrize("n", [0, 1, 3])
def test_devices_without_visits(n):
    values = PairFeatures(empty_logs(n))(all_pairs(n))
    assert len(values) == n * (n - 1) // 2
    assert bool(values.isfinite().all())


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="depth: expected at least one neighbour, got 0"):
        PairFeatures(LOGS, depth=0)
    with pytest.raises(ValueError, match="rounds: expected none or more, got -1"):
        PairFeatures(LOGS, rounds=-1)
    with pytest.raises(ValueError, match="views: expected at least one"):
        PairFeatures(LOGS, {})
    with pytest.raises(ValueError, match="pairs: expected devices from 0 to 17, got 0 to 18"):
        FEATURES(torch.tensor([[0, 18]]))
