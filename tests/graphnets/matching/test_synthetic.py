import dataclasses

import numpy as np
import pytest
import torch

from graphnets.matching.cikm import load_cikm
from graphnets.matching.pair_files import load_pairs
from graphnets.matching.pairs import positive_pairs, same_user
from graphnets.matching.synthetic import Synthetic, generate, synthetic_logs, world


def one_to_one(a, b):
    """Whether two tensors are equal up to the numbering of their values."""
    both = torch.stack([a.reshape(-1), b.reshape(-1)]).unique(dim=1).shape[1]
    return len(a.unique()) == len(b.unique()) == both


def equal_logs(a, b):
    return all(
        torch.equal(x, y)
        for x, y in [
            (a.page.ptr, b.page.ptr),
            (a.page.values, b.page.values),
            (a.time, b.time),
            (a.users, b.users),
            (a.kinds, b.kinds),
            (a.pages.prefixes, b.pages.prefixes),
            (a.pages.words.values, b.pages.words.values),
        ]
    ) and list(a.names) == list(b.names)


@pytest.mark.parametrize("n", [0, 1, 60])
@pytest.mark.parametrize("compress", [False, True])
def test_files_hold_the_same_logs(tmp_path, n, compress):
    direct = synthetic_logs(n, seed=3)
    generate(tmp_path / "cup", n, seed=3, compress=compress)
    loaded, pairs = load_cikm(tmp_path / "cup")
    assert loaded.names == direct.names
    assert torch.equal(loaded.time, direct.time)
    assert torch.equal(loaded.page.ptr, direct.page.ptr)
    assert one_to_one(loaded.page.values, direct.page.values)
    assert torch.equal(pairs, positive_pairs(direct.users))
    assert torch.equal(positive_pairs(loaded.users), pairs)

    to_direct = torch.empty(len(direct.pages), dtype=torch.int64)
    to_direct[loaded.page.values] = direct.page.values
    prefixes = direct.pages.prefixes[to_direct]
    assert torch.equal(prefixes < 0, loaded.pages.prefixes < 0)
    assert one_to_one(prefixes, loaded.pages.prefixes)
    words, _ = direct.pages.words.select(to_direct)
    assert torch.equal(words.ptr, loaded.pages.words.ptr)
    assert one_to_one(words.values, loaded.pages.words.values)


def test_the_test_has_users_of_its_own(tmp_path):
    generate(tmp_path, 200, seed=1, test=0.4)
    logs, train = load_cikm(tmp_path)
    test = load_pairs(tmp_path / "test.csv", logs.names)
    assert len(train) > 0
    assert len(test) > 0
    assert not np.isin(train.numpy(), test.numpy()).any()
    together = torch.cat([train, test])
    expected = positive_pairs(synthetic_logs(200, seed=1).users)
    assert {*map(tuple, together.tolist())} == {*map(tuple, expected.tolist())}


def test_files_of_before_are_replaced(tmp_path):
    for n, compress in ((20, False), (10, True), (15, False)):
        generate(tmp_path, n, compress=compress)
        assert len(load_cikm(tmp_path)[0]) == n


def test_a_seed_gives_the_same_logs_and_another_others():
    logs = synthetic_logs(30, seed=5)
    assert equal_logs(logs, synthetic_logs(30, seed=5))
    assert not torch.equal(logs.time[:50], synthetic_logs(30, seed=6).time[:50])
    assert synthetic_logs(30, seed=6).names != logs.names


def test_chunks_of_devices_are_put_together(monkeypatch):
    monkeypatch.setattr(world, "CHUNK", 7)
    logs = synthetic_logs(30, seed=2)
    assert len(logs) == 30
    assert logs.page.lengths.min() >= 2
    assert len(logs.users.unique()) < 30


def test_lengths_users_and_kinds_follow_the_settings():
    logs = synthetic_logs(3000, seed=0)
    lengths = logs.page.lengths.double()
    # three standard errors of the median and the mean of 3,000 log-normal lengths
    assert abs(float(lengths.median()) - 106) < 3 * 106 * 1.135 * 1.2533 / 3000**0.5
    assert abs(float(lengths.mean()) - 197) < 3 * float(lengths.std()) / 3000**0.5
    assert 2 <= lengths.min() <= lengths.max() <= 2000
    per_user = logs.users.bincount()
    assert set(per_user.tolist()) == {1, 2, 3, 4, 5}
    assert abs(float(logs.kinds.double().mean()) - 0.5) < 3 * 0.5 / 3000**0.5
    seconds = logs.time // 1000
    assert torch.equal(seconds * 1000, logs.time)


def test_few_pairs_share_no_page_and_other_devices_share_less():
    logs = synthetic_logs(600, seed=0)
    visited = torch.zeros(len(logs), len(logs.pages), dtype=torch.bool)
    visited[logs.page.row, logs.page.values] = True
    common = visited.float() @ visited.float().T
    pairs = positive_pairs(logs.users)
    own = common[pairs[:, 0], pairs[:, 1]]
    assert float((own == 0).double().mean()) < 0.04
    others = torch.combinations(torch.arange(len(logs)))
    others = others[~same_user(logs.users, others)]
    assert own.median() > common[others[:, 0], others[:, 1]].median()


def order_agreement(logs):
    """How much more often two devices of a user share a step i -> j than its reverse j -> i."""
    same = logs.page.row[1:] == logs.page.row[:-1]
    device = logs.page.row[1:][same]
    before, after = logs.page.values[:-1][same], logs.page.values[1:][same]
    moved = before != after
    n = len(logs.pages)
    steps = [{*()} for _ in range(len(logs))]
    for d, key in zip(device[moved].tolist(), (before * n + after)[moved].tolist()):
        steps[d].add(key)
    along = against = 0
    for a, b in positive_pairs(logs.users).tolist():
        along += len(steps[a] & steps[b])
        against += len(steps[a] & {key % n * n + key // n for key in steps[b]})
    return along / against


def test_order_tells_about_a_user():
    """With routines steps are shared in their own direction; without, nearly as often reversed."""
    quiet = Synthetic(routine=0.0, favourite=0.5)
    assert order_agreement(synthetic_logs(400, seed=0)) > 1.5
    assert order_agreement(synthetic_logs(400, seed=0, settings=quiet)) < 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mobile": 1.5}, "mobile: expected a share from 0 to 1, got 1.5"),
        ({"skipped": float("nan")}, "skipped: expected a share from 0 to 1, got nan"),
        ({"routine": 0.7, "favourite": 0.7}, "expected a sum of at most 1"),
        ({"favourites": 0}, "favourites: expected 1 or more, got 0"),
        ({"device_counts": ()}, "device_counts: expected shares"),
        ({"spread": float("nan")}, "spread: expected 0 or more, got nan"),
        ({"most_visits": 1}, "most_visits: expected 2 or more, got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(Synthetic(), **changes)


def test_wrong_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match="n_devices: expected 0 or more, got -1"):
        synthetic_logs(-1)
    with pytest.raises(ValueError, match="test: expected a share from 0 to 1, got 2"):
        generate(tmp_path, 5, test=2)
