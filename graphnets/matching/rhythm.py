"""When a device is used: its hours of the day and of the week, and its active time slots."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.counts import unit_rows
from graphnets.matching.logs import HOUR, Logs


def rhythm(logs: Logs, hours: int = 168) -> Tensor:
    """How active each device is in each hour of a cycle: unit rows (n, hours) float32.

    Entries are square roots of counts of visits, so that the scalar product of two rows is the
    Bhattacharyya coefficient of the devices' distributions over hours; a row is zero where a
    device has no visit.

    Args:
        logs: with times in UTC.
        hours: of a cycle, 168 for a week (from Thursday, as the epoch does), 24 for a day.

    Raises:
        ValueError: hours is not positive.
    """
    if hours < 1:
        raise ValueError(f"hours: expected at least 1, got {hours}")
    slot = (logs.time // HOUR) % hours
    counts = torch.bincount(logs.page.row * hours + slot, minlength=len(logs) * hours)
    return torch.nn.functional.normalize(counts.view(len(logs), hours).float().sqrt(), dim=1)


def active_slots(logs: Logs, slot: int = HOUR) -> sp.csr_array:
    """In which slots of absolute time each device is active: unit rows (n, n_slots) float32.

    The scalar product of two rows is the share of slots in which both are active (Ochiai's
    coefficient): people use their devices in turns within the same hours.

    Args:
        logs: with times.
        slot: its length in milliseconds; slots without any visit have no column.

    Raises:
        ValueError: slot is not positive.
    """
    if slot < 1:
        raise ValueError(f"slot: expected at least 1 ms, got {slot}")
    found, column = np.unique((logs.time // slot).numpy(), return_inverse=True)
    ones = np.ones(len(column), np.float32)
    shape = (len(logs), len(found))
    active = sp.csr_array((ones, column, logs.page.ptr.numpy()), shape=shape, copy=True)
    active.sum_duplicates()
    active.data[:] = 1
    return unit_rows(active)
