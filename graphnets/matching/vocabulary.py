"""The tokens that devices may share: prefixes and words of pages, and steps from page to page.

Kinds of tokens are numbered: the levels of prefixes, then one number for words, then the levels of
prefixes again for steps, from one prefix of that level to another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from graphnets.matching.logs import Logs, Pages
from graphnets.ragged import Ragged, blocks
from graphnets.stable import stable_ids

BLOCK = 1 << 21  # visits whose tokens are in memory at a time


@dataclass(frozen=True, eq=False)
class Frequencies:
    """How many devices have each token, apart from any pages: for logs that come later.

    Attributes:
        kinds: (m,) int64.
        ids: (m,) int64, of the prefix, word or step. Tokens are sorted by kind, then by id.
        devices: (m,) int64.
        n_devices: in all.
    """

    kinds: Tensor
    ids: Tensor
    devices: Tensor
    n_devices: int


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of some logs, and how many devices have each.

    Attributes:
        tokens: for each page its tokens, each once; steps are not among them.
        kinds, ids: (n_tokens,) int64, as in `Frequencies`.
        here: (n_tokens,) int64, the number of devices of the logs that have a token.
        devices: (n_tokens,) int64, with those of logs that were known before.
        n_devices: in all, with those.
        n_levels: of the pages' prefixes.
    """

    tokens: Ragged
    kinds: Tensor
    ids: Tensor
    here: Tensor
    devices: Tensor
    n_devices: int
    n_levels: int

    @property
    def n_kinds(self) -> int:
        """The number of kinds of tokens."""
        return n_kinds(self.n_levels)

    @property
    def idf(self) -> Tensor:
        """(n_tokens,) float32: how rare a token is, from 0 (all have it) to about 1 (two have it).

        log((n + 1) / (devices + 1)) over its value for two devices.
        """
        n = self.n_devices + 1
        return (torch.log(n / (self.devices + 1.0)) / math.log(max(n / 3, 2.0))).float()

    def find(self, kind: int, ids: Tensor) -> Tensor:
        """The token of each of these ids (k,) of one kind, (k,) int64; -1 where there is none."""
        of_kind = (self.kinds == kind).nonzero()[:, 0]
        return found_in(self.ids[of_kind], ids, of_kind)

    def frequencies(self) -> Frequencies:
        """What later vocabularies may take as known before."""
        return Frequencies(self.kinds, self.ids, self.devices, self.n_devices)


def n_kinds(n_levels: int) -> int:
    """The number of kinds of tokens of pages whose prefixes have so many levels."""
    return 2 * n_levels + 1


def vocabulary(logs: Logs, known: Frequencies | None = None) -> Vocabulary:
    """The tokens of these logs, steps only if two devices make them; no label is looked at.

    Args:
        logs: of any devices.
        known: frequencies of other devices' logs, which these are added to; ids must mean the same.
    """
    tokens, kinds, ids = page_tokens(logs.pages)
    here = [_devices_of_pages(logs, tokens, len(kinds))]
    all_kinds, all_ids = [kinds], [ids]
    n_levels = logs.pages.prefixes.shape[1]
    for level in range(n_levels):
        visits, steps = steps_of(logs, level)
        found, devices = _devices_of_steps(logs.page.row[visits], steps)
        # Most steps are one device's alone, and would take most of the memory.
        found, devices = found[devices > 1], devices[devices > 1]
        all_kinds.append(torch.full_like(found, n_levels + 1 + level))
        all_ids.append(found)
        here.append(devices)
    kinds, ids, owners = torch.cat(all_kinds), torch.cat(all_ids), torch.cat(here)
    n_devices, devices = len(logs), owners
    if known is not None:
        n_devices += known.n_devices
        devices = owners + _known_devices(known, kinds, ids, n_levels)
    return Vocabulary(tokens, kinds, ids, owners, devices, n_devices, n_levels)


def _known_devices(known: Frequencies, kinds: Tensor, ids: Tensor, n_levels: int) -> Tensor:
    """The devices of `known` that have each token (k,), by its kind and id."""
    found = torch.zeros_like(ids)
    for kind in range(n_kinds(n_levels)):
        ours, theirs = kinds == kind, known.kinds == kind
        numbers = torch.arange(int(theirs.sum()))
        place = found_in(known.ids[theirs], ids[ours], numbers)
        counts = torch.cat([known.devices[theirs], torch.zeros(1, dtype=torch.int64)])
        found[ours] = counts[place]  # a place of -1 is the zero at the end
    return found


def found_in(names: Tensor, ids: Tensor, numbers: Tensor) -> Tensor:
    """The number (m,) that belongs to each id's place among rising names (m,); -1 for others."""
    if not len(names):
        return torch.full_like(ids, -1)
    place = torch.searchsorted(names, ids).clamp(max=len(names) - 1)
    return torch.where(names[place] == ids, numbers[place], -1)


def steps_of(logs: Logs, level: int) -> tuple[Tensor, Tensor]:
    """Steps from one prefix of a level to another: the visits that they led to, and their ids.

    Both (k,) int64. Visits without such a prefix, and steps that stay at one, are left out.
    """
    prefix = logs.pages.prefixes[:, level][logs.page.values]
    visits = (prefix >= 0).nonzero()[:, 0]
    device, prefix = logs.page.row[visits], prefix[visits]
    goes = ((device.diff() == 0) & (prefix.diff() != 0)).nonzero()[:, 0]
    ids = stable_ids(prefix[goes].numpy(), prefix[goes + 1].numpy())
    return visits[goes + 1], torch.from_numpy(ids)


def _devices_of_steps(device: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct steps, rising, and the number of devices that make each."""
    found, number = steps.unique(return_inverse=True)
    owned = (device * max(len(found), 1) + number).unique() % max(len(found), 1)
    return found, torch.bincount(owned, minlength=len(found))


def _devices_of_pages(logs: Logs, tokens: Ragged, n_tokens: int) -> Tensor:
    """The number of devices that visit a page with each token."""
    n_pages, width = max(len(logs.pages), 1), max(n_tokens, 1)
    counts = torch.zeros(n_tokens, dtype=torch.int64)
    for block in blocks(logs.page.lengths, BLOCK):  # no device is in two of them
        page, _ = logs.page.select(block)
        visited = (page.row * n_pages + page.values).unique()
        had, _ = tokens.select(visited % n_pages)
        device = (visited // n_pages)[had.row]
        owned = (device * width + had.values).unique() % width
        counts += torch.bincount(owned, minlength=n_tokens)
    return counts


def page_tokens(pages: Pages) -> tuple[Ragged, Tensor, Tensor]:
    """For each page its tokens, each once, and the kind and the id of each token."""
    numbers = torch.arange(len(pages))
    parts = [
        *((numbers, column) for column in pages.prefixes.T),
        (pages.words.row, pages.words.values),
    ]
    rows, tokens, kinds, ids = [], [], [], []
    first = 0
    for kind, (row, values) in enumerate(parts):
        found, inverse = values[values >= 0].unique(return_inverse=True)
        rows.append(row[values >= 0])
        tokens.append(inverse + first)
        kinds.append(torch.full((len(found),), kind))
        ids.append(found)
        first += len(found)
    keys = (torch.cat(rows) * max(first, 1) + torch.cat(tokens)).unique()
    of_pages = Ragged.from_rows(keys // max(first, 1), keys % max(first, 1), len(pages))
    return of_pages, torch.cat(kinds), torch.cat(ids)
