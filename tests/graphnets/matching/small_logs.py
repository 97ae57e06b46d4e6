"""Logs small enough to be checked by hand, and some that are drawn."""

import numpy as np
import torch

from graphnets.matching.logs import DAY, HOUR, Logs, Pages
from graphnets.matching.xdt import COLUMNS
from graphnets.ragged import Ragged


def drawn_logs(n_users=6, per_user=3, visits=60, pages=40, seed=0):
    """Users who visit pages of their own more than others do, on devices of two kinds."""
    g = torch.Generator().manual_seed(seed)
    prefixes = torch.stack([torch.arange(pages) // 4, torch.arange(pages)], 1) + 100
    words = Ragged.from_lengths(torch.full((pages,), 1), torch.arange(pages) % 7)
    device, page, time = [], [], []
    for d in range(n_users * per_user):
        n = visits + d
        own = 3 * (d // per_user) + torch.randint(6, (n,), generator=g)
        any_page = torch.randint(pages, (n,), generator=g)
        page.append(torch.where(torch.rand(n, generator=g) < 0.5, own % pages, any_page))
        device.append(torch.full((n,), d))
        time.append((torch.rand(n, generator=g) * 20 * DAY).long() + 17_000 * DAY)
    n_devices = n_users * per_user
    return Logs.from_visits(
        Pages(prefixes, words),
        torch.cat(device),
        torch.cat(page),
        torch.cat(time),
        [f"d{d}" for d in range(n_devices)],
        torch.arange(n_devices) // per_user,
        torch.arange(n_devices) % 2,
    )


def two_devices():
    """Device a visits pages 0, 1, 0, 2; device b visits 0, 1; an hour between visits."""
    prefixes = torch.tensor([[10, 20], [10, 21], [11, -1]])
    words = Ragged(torch.tensor([0, 2, 3, 3]), torch.tensor([7, 8, 7]))
    return Logs.from_visits(
        Pages(prefixes, words),
        torch.tensor([0, 0, 0, 0, 1, 1]),
        torch.tensor([0, 1, 0, 2, 0, 1]),
        torch.arange(6) * HOUR,
        ["a", "b"],
        torch.tensor([5, 5]),
        torch.tensor([0, 1]),
    )


def write_xdt(path, n_users=15, seed=0, visits=150):
    """Drawn logs in the layout of the real ones: users with a desktop and a mobile device each.

    Users of another seed have other interests. Visits are those of a device in three weeks.
    """
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in COLUMNS}
    for user in range(n_users):
        for device in range(2):
            n = visits
            own = rng.random(n) < 0.5
            sld = np.where(
                own,
                1 + (3 * user + 17 * seed) % 56 + rng.integers(4, size=n),
                1 + rng.integers(60, size=n),
            )
            rows = {
                "user": np.full(n, user + 100 * seed),
                "device": np.full(n, device),
                "is_app": np.zeros(n),
                "ts": np.sort(rng.integers(0, 21 * 86_400, size=n)) + 1_460_000_000,
                "subdomain": np.zeros(n),
                "sld": sld,
                "tld": np.full(n, 999),
                "path": rng.integers(300, 303, size=n),
                "title": 1000 + sld,
            }
            for name, values in rows.items():
                columns[name].append(values)
    arrays = {name: np.concatenate(parts).astype(np.int32) for name, parts in columns.items()}
    np.savez(path, allow_pickle=False, **arrays)
    return path
