import numpy as np
import pytest
import torch
from random_logs import empty_logs, random_logs

from graphnets.matching.logs import HOUR
from graphnets.matching.rhythm import active_slots, rhythm

LOGS = random_logs(3)


@pytest.mark.parametrize("hours", [1, 24, 168])
def test_products_are_bhattacharyya_coefficients(hours):
    found = rhythm(LOGS, hours)
    shares = np.zeros((len(LOGS), hours))
    for device, time in zip(LOGS.page.row.tolist(), LOGS.time.tolist()):
        shares[device, time // HOUR % hours] += 1
    shares /= np.maximum(shares.sum(1, keepdims=True), 1)
    expected = np.sqrt(shares) @ np.sqrt(shares).T
    assert np.allclose((found @ found.T).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("slot", [HOUR, HOUR // 6, 10**15])
def test_products_are_shares_of_slots(slot):
    before = LOGS.page.ptr.clone()
    found = active_slots(LOGS, slot)
    active = [set() for _ in range(len(LOGS))]
    for device, time in zip(LOGS.page.row.tolist(), LOGS.time.tolist()):
        active[device].add(time // slot)
    size = [max(len(a), 1) for a in active]
    expected = [
        [len(a & b) / (m * n) ** 0.5 for b, n in zip(active, size)] for a, m in zip(active, size)
    ]
    assert np.allclose((found @ found.T).toarray(), expected, atol=1e-6)
    assert LOGS.page.ptr.equal(before)


def test_devices_without_visits_are_zero():
    assert rhythm(empty_logs(2), 24).equal(torch.zeros(2, 24))
    assert active_slots(empty_logs(2)).nnz == 0
    assert rhythm(empty_logs(0)).shape == (0, 168)


def test_wrong_lengths_are_refused():
    with pytest.raises(ValueError, match="hours: expected at least 1, got 0"):
        rhythm(LOGS, 0)
    with pytest.raises(ValueError, match="slot: expected at least 1 ms, got 0"):
        active_slots(LOGS, 0)
