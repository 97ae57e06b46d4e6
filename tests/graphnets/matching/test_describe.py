import torch

from graphnets.matching.describe import describe
from graphnets.matching.logs import Logs, Pages
from graphnets.matching.synthetic import synthetic_logs
from graphnets.ragged import Ragged

PAGES = Pages(
    torch.zeros((5, 1), dtype=torch.int64),
    Ragged.from_lengths(torch.zeros(5).long(), torch.zeros(0).long()),
)


def test_counts_of_small_logs():
    logs = Logs.from_visits(
        PAGES,
        torch.tensor([0, 0, 0, 3, 2]),
        torch.tensor([4, 4, 1, 0, 1]),
        torch.tensor([0, 1, 2, 3, 3_600_000]),
        ["a", "b", "c", "d", "e"],
        torch.tensor([7, -1, 7, 7, 9]),
    )
    found = describe(logs)
    assert (found.devices, found.users, found.unknown, found.pairs) == (5, 2, 1, 3)
    assert (found.visits, found.pages) == (5, 3)
    assert found.lengths == (0, 0, 1, 1, 3)
    assert found.mean_length == 1
    text = str(found)
    assert "2, of 4 devices" in text
    assert "0 / 0 / 1 / 1 / 3" in text
    assert "1970-01-01 01:00 UTC" in text


def test_logs_without_devices_can_be_described():
    found = describe(synthetic_logs(0))
    assert (found.devices, found.pairs, found.begin) == (0, 0, None)
    assert "never" in str(found)
