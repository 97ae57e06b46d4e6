import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.logs import DAY
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.training.episodes import PairEpisodes, WindowEpisodes

LOGS = drawn_logs()


def window_episodes(**options):
    settings = {"count": 3, "users": 4, "per_user": 3, "days": (5.0, 10.0), "min_visits": 5}
    return WindowEpisodes(LOGS, **settings | options)


def test_windows_are_parts_of_devices_logs():
    episode = window_episodes()[0]
    logs = episode.logs
    assert len(logs.users.unique()) == 4
    for k in range(len(logs)):
        source = int(logs.sources[k])
        assert logs.users[k] == LOGS.users[source]
        begin, end = int(logs.page.ptr[k]), int(logs.page.ptr[k + 1])
        times = logs.time[begin:end]
        assert len(times) >= 5
        assert int(times[-1] - times[0]) <= 10 * DAY
        whole = LOGS.time[int(LOGS.page.ptr[source]) : int(LOGS.page.ptr[source + 1])]
        inside = whole[(whole >= times[0]) & (whole <= times[-1])]
        assert torch.equal(inside, times)


def test_an_episode_depends_on_its_number_alone():
    first, again = window_episodes()[1], window_episodes()[1]
    assert torch.equal(first.logs.time, again.logs.time)
    assert torch.equal(first.pairs, again.pairs)
    later = window_episodes()
    later.epoch = 1
    assert not torch.equal(later[1].logs.time, first.logs.time)
    assert not torch.equal(window_episodes(seed=1)[1].logs.time, first.logs.time)


def test_all_pairs_have_their_answer():
    episode = window_episodes()[0]
    assert torch.equal(episode.pairs, all_pairs(len(episode.logs)))
    expected = same_user(episode.logs.users, episode.pairs)
    assert torch.equal(episode.labels.bool(), expected)
    assert torch.equal(episode.weights, torch.ones(len(expected)))


def test_fewer_negatives_weigh_as_much_as_all():
    whole, fewer = window_episodes()[0], window_episodes(negatives=2)[0]
    true = int(fewer.labels.sum())
    assert true == int(whole.labels.sum())
    assert len(fewer.labels) == 3 * true
    negatives = fewer.weights[fewer.labels == 0]
    torch.testing.assert_close(negatives.sum(), (whole.labels == 0).sum().float())


def test_windows_with_too_few_visits_are_left_out():
    whole = window_episodes(min_visits=1, days=(1.0, 8.0))[0]
    episode = window_episodes(min_visits=25, days=(1.0, 8.0))[0]
    assert 0 < len(episode.logs) < len(whole.logs)
    assert int(episode.logs.page.lengths.min()) >= 25
    with pytest.raises(ValueError, match="windows of 1 to 2 days only 0 have 40 visits"):
        window_episodes(min_visits=40, days=(1.0, 2.0))[0]


def times(logs, device):
    return logs.time[logs.page.ptr[device] : logs.page.ptr[device + 1]]


def test_devices_may_come_anew_with_each_pair():
    pairs = all_pairs(len(LOGS))[::3]
    labels = same_user(LOGS.users, pairs)
    shared, copied = (PairEpisodes(LOGS, pairs, labels, 10, once=once)[0] for once in (True, False))
    assert len(shared.logs) < len(copied.logs) == 20
    assert torch.equal(shared.labels, copied.labels)
    for pair, copy in zip(shared.pairs, copied.pairs):
        for d, e in zip(pair, copy):
            assert torch.equal(shared.logs.users[d], copied.logs.users[e])
            assert torch.equal(times(shared.logs, d), times(copied.logs, e))


def test_given_pairs_come_once_an_epoch_and_share_devices():
    pairs = all_pairs(len(LOGS))[::3]
    labels = same_user(LOGS.users, pairs)
    episodes = PairEpisodes(LOGS, pairs, labels, batch=10)
    seen = []
    for i in range(len(episodes)):
        episode = episodes[i]
        names = [[episode.logs.names[int(d)] for d in pair] for pair in episode.pairs]
        seen += [(*sorted(pair), bool(y)) for pair, y in zip(names, episode.labels)]
        assert len(episode.logs) == len(episode.pairs.unique())
    expected = [
        (*sorted(LOGS.names[int(d)] for d in pair), bool(y)) for pair, y in zip(pairs, labels)
    ]
    assert sorted(seen) == sorted(expected)
    first = episodes[0].logs.names
    episodes.epoch = 1
    assert episodes[0].logs.names != first


def test_the_order_of_an_epoch_is_drawn_once(monkeypatch):
    drawn, randperm = [], torch.randperm

    def counted(n, **options):
        drawn.append(n)
        return randperm(n, **options)

    monkeypatch.setattr(torch, "randperm", counted)
    pairs = all_pairs(len(LOGS))
    episodes = PairEpisodes(LOGS, pairs, same_user(LOGS.users, pairs), batch=10)
    first = [episodes[i].logs.names for i in range(len(episodes))]
    assert len(drawn) == 1
    episodes.epoch = 1
    assert [episodes[i].logs.names for i in range(len(episodes))] != first
    assert len(drawn) == 2
    episodes.epoch = 0
    assert [episodes[i].logs.names for i in range(len(episodes))] == first
    few = pairs[:20]  # of the same epoch, but others
    episodes.pairs, episodes.labels = few, same_user(LOGS.users, few)
    alone = PairEpisodes(LOGS, few, episodes.labels, batch=10)
    assert episodes[1].logs.names == alone[1].logs.names


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="per_user: expected at least 2 windows, got 1"):
        window_episodes(per_user=1)
    with pytest.raises(ValueError, match=r"min_visits: .*got nan"):
        window_episodes(min_visits=float("nan"))
    with pytest.raises(ValueError, match=r"days: .*got \(5\.0, nan\)"):
        window_episodes(days=(5.0, float("nan")))
    unknown = drawn_logs()
    unknown.users[4] = -1
    with pytest.raises(ValueError, match="the user of device 'd4' is not known"):
        WindowEpisodes(unknown)
    pairs = all_pairs(3)
    with pytest.raises(ValueError, match="labels: expected bool"):
        PairEpisodes(LOGS, pairs, torch.ones(3))
    with pytest.raises(ValueError, match="batch: expected at least 1"):
        PairEpisodes(LOGS, pairs, torch.ones(3).bool(), batch=0)
