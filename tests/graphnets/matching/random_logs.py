"""Small random logs of users with tastes, for tests."""

import torch

from graphnets.matching.logs import HOUR, Logs, Pages
from graphnets.ragged import Ragged


def random_logs(n_users=8, visits=30, seed=0, n_pages=40):
    """Two devices of each user, kinds 0 and 1; then one that is nobody's, and an empty one."""
    g = torch.Generator().manual_seed(seed)
    domain = torch.randint(0, n_pages // 2, (n_pages,), generator=g)
    path = torch.where(torch.rand(n_pages, generator=g) < 0.3, -1, 100 + torch.arange(n_pages))
    lengths = torch.randint(0, 4, (n_pages,), generator=g)
    words = torch.randint(0, 30, (int(lengths.sum()),), generator=g)
    pages = Pages(torch.stack([domain, path], 1), Ragged.from_lengths(lengths, words))
    n = 2 * n_users + 2
    device = torch.randint(0, n - 1, (visits * (n - 1),), generator=g)
    taste = torch.randint(0, n_pages, (n_users + 1, 6), generator=g)
    liked = taste[device // 2, torch.randint(0, 6, device.shape, generator=g)]
    any_page = torch.randint(0, n_pages, device.shape, generator=g)
    page = torch.where(torch.rand(device.shape, generator=g) < 0.5, liked, any_page)
    time = torch.randint(0, 1000 * HOUR, device.shape, generator=g)
    users = torch.cat([torch.arange(n_users).repeat_interleave(2), torch.tensor([-1, -1])])
    names = [str(d) for d in range(n)]
    return Logs.from_visits(pages, device, page, time, names, users, torch.arange(n) % 2)


def empty_logs(n):
    """Of n devices without a visit, and no page."""
    none = torch.zeros(0, dtype=torch.int64)
    pages = Pages(torch.zeros(0, 2, dtype=torch.int64), Ragged.from_lengths(none, none))
    return Logs.from_visits(pages, none, none, none, [str(d) for d in range(n)])
