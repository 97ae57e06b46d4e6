import pytest
import torch
from small_logs import drawn_logs

from graphnets.matching.logs import DAY, WEEK, Logs, Pages, fingerprints, week_slices, windows
from graphnets.ragged import Ragged

PAGES = Pages(
    torch.tensor([[0, 3], [1, 4], [2, -1]]),
    Ragged(torch.tensor([0, 1, 1, 3]), torch.tensor([5, 6, 5])),
)


def logs(device, page, time, names=("a", "b", "c"), **options):
    return Logs.from_visits(
        PAGES, torch.tensor(device), torch.tensor(page), torch.tensor(time), names, **options
    )


def test_visits_are_sorted_by_time_and_ties_keep_their_order():
    found = logs([1, 0, 1, 1], [2, 0, 1, 0], [50, 7, 50, 3])
    assert found.page[0].tolist() == [0]
    assert found.page[1].tolist() == [0, 2, 1]
    assert found.page[2].tolist() == []  # a device without a visit
    assert found.time.tolist() == [7, 3, 50, 50]
    assert found.users.tolist() == [-1, -1, -1]


def test_select_takes_what_belongs_to_a_device():
    whole = logs([0, 1, 1], [0, 1, 2], [1, 2, 3], users=torch.tensor([7, 8, 9]))
    found = whole.select(torch.tensor([1, 0]))
    assert found.names == ["b", "a"]
    assert found.users.tolist() == [8, 7]
    assert found.page[0].tolist() == [1, 2]
    assert found.time.tolist() == [2, 3, 1]


def test_week_slices_split_devices_and_drop_short_weeks():
    time = [0, 1, WEEK - 1, WEEK, 3 * WEEK, 3 * WEEK + 1]
    found = week_slices(logs([0, 0, 0, 0, 1, 1], [0, 1, 2, 0, 1, 2], time), min_visits=2)
    assert found.names == ["a/0", "b/3"]
    assert found.periods.tolist() == [0, 3]
    assert found.sources.tolist() == [0, 1]
    assert found.page[0].tolist() == [0, 1, 2]
    assert found.page[1].tolist() == [1, 2]


def test_slices_and_windows_of_selected_logs_have_the_sources_of_the_whole():
    whole = logs([0, 1, 1], [0, 1, 2], [1, 2, 3])
    some = whole.select(torch.tensor([1]))
    none, end = torch.tensor([0]), torch.tensor([WEEK])
    assert week_slices(some, 1).sources.tolist() == [1]
    assert windows(some, none, none, end).sources.tolist() == [1]


def test_times_in_several_units_are_noticed(recwarn):
    logs([0, 1], [0, 1], [1_460_000_000_000, 1_460_000_000_000 + 25 * 365 * DAY])
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="time: visits span 46 years; are some in seconds"):
        logs([0, 1], [0, 1], [1_460_000_000, 1_460_000_000_000])


def test_logs_that_go_back_in_time_name_the_device():
    good = logs([0, 1, 1], [0, 1, 2], [9, 2, 3])
    with pytest.raises(ValueError, match="time: device 'b' goes back"):
        Logs(PAGES, good.page, torch.tensor([9, 3, 2]), good.names, *[good.users] * 4)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="page: expected rows of pages from 0 to 2, got 0 to 3"):
        logs([0, 0], [0, 3], [1, 2])
    with pytest.raises(ValueError, match="names: expected 3 that differ, got 3, 2"):
        logs([0], [0], [1], names=("a", "b", "a"))
    with pytest.raises(ValueError, match="row: expected 0 to 2"):
        logs([3], [0], [1])
    with pytest.raises(ValueError, match="users: expected int64 of shape"):
        logs([0], [0], [1], users=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="words: expected those of 2 pages, got 3"):
        Pages(PAGES.prefixes[:2], PAGES.words)


def test_visits_of_other_lengths_are_refused():
    visits = {"device": [0, 0, 1], "page": [0, 1, 0], "time": [3, 1, 2]}
    for name, values in visits.items():
        for wrong in (values[:2], values + values, [1.0, 1.0, 0.0]):
            with pytest.raises(ValueError, match="one for each visit"):
                logs(**(visits | {name: wrong}))


def test_fingerprints_are_of_the_visits_alone():
    logs = drawn_logs()
    again = logs.select(torch.tensor([4, 2]))
    assert torch.equal(fingerprints(again), fingerprints(logs)[[4, 2]])
    assert len(fingerprints(logs).unique()) == len(logs)
