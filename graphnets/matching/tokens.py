"""What devices may share: the prefixes of the pages that they visit, the pages, and their words.

A device is a row of a sparse matrix, with a column for each token; whatever is learned about it is
a value there. The columns are those of tokens that at least two devices have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from graphnets.matching.graphs import DeviceGraphs
from graphnets.matching.logs import DAY, Logs, Pages
from graphnets.ragged import Ragged
from sparsetorch import CSRTensor, Pattern


@dataclass(frozen=True)
class Frequencies:
    """How many devices have each token, apart from any pages: for logs that come later.

    Attributes:
        kinds: (m,) int64; the level of a prefix, or the number of levels for a word.
        ids: (m,) int64, of the prefix or word. Tokens are sorted by kind, then by id.
        devices: (m,) int64.
        n_devices: in all.
    """

    kinds: Tensor
    ids: Tensor
    devices: Tensor
    n_devices: int


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a set of pages, and how many devices have each.

    Attributes:
        tokens: for each page its tokens, each once.
        kinds, ids: (n_tokens,) int64, as in `Frequencies`.
        here: (n_tokens,) int64, the number of devices of the logs that have a token.
        devices: (n_tokens,) int64, with those of logs that were known before.
        n_devices: in all, with those.
    """

    tokens: Ragged
    kinds: Tensor
    ids: Tensor
    here: Tensor
    devices: Tensor
    n_devices: int
    n_kinds: int

    @property
    def idf(self) -> Tensor:
        """(n_tokens,) float32: how rare a token is, from 0 (all have it) to about 1 (two have it).

        log((n + 1) / (devices + 1)) over its value for two devices.
        """
        n = self.n_devices + 1
        return (torch.log(n / (self.devices + 1.0)) / math.log(max(n / 3, 2.0))).float()

    def frequencies(self) -> Frequencies:
        """What later vocabularies may take as known before."""
        return Frequencies(self.kinds, self.ids, self.devices, self.n_devices)


def vocabulary(logs: Logs, known: Frequencies | None = None) -> Vocabulary:
    """The tokens of these logs' pages; no label is looked at.

    Args:
        logs: of any devices.
        known: frequencies of other devices' logs, which these are added to; ids must mean the same.
    """
    tokens, kinds, ids = page_tokens(logs.pages)
    n_pages, n_tokens = max(len(logs.pages), 1), max(len(kinds), 1)
    visited = (logs.page.row * n_pages + logs.page.values).unique()
    had, _ = tokens.select(visited % n_pages)
    device = (visited // n_pages)[had.row]
    owned = (device * n_tokens + had.values).unique() % n_tokens
    here = torch.bincount(owned, minlength=len(kinds))
    n_kinds = logs.pages.prefixes.shape[1] + 1
    before = torch.zeros_like(here) if known is None else _known(known, kinds, ids, n_kinds)
    n_devices = len(logs) + (known.n_devices if known else 0)
    return Vocabulary(tokens, kinds, ids, here, here + before, n_devices, n_kinds)


def _known(known: Frequencies, kinds: Tensor, ids: Tensor, n_kinds: int) -> Tensor:
    """The devices of `known` that have each token."""
    found = torch.zeros_like(ids)
    for kind in range(n_kinds):
        ours, theirs = kinds == kind, known.kinds == kind
        names, counts = known.ids[theirs], known.devices[theirs]
        if len(names):
            place = torch.searchsorted(names, ids[ours]).clamp(max=len(names) - 1)
            found[ours] = torch.where(names[place] == ids[ours], counts[place], 0)
    return found


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


@dataclass(frozen=True)
class DeviceTokens:
    """The shared tokens of several devices.

    Attributes:
        pattern: (n_devices, n_tokens); entry (d, t) if device d has token t.
        nodes: (nnz, n_nodes) pattern: the nodes of the devices' graphs behind each entry.
        features: (nnz, f) float32, what the log says of each entry; see `entry_features`.
    """

    pattern: Pattern
    nodes: Pattern
    features: Tensor

    def to(self, device: torch.device | str) -> Self:
        """These tokens on a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def device_tokens(logs: Logs, graphs: DeviceGraphs, known: Vocabulary) -> DeviceTokens:
    """The tokens of these devices that at least two devices of the vocabulary's logs have."""
    shared = known.here > 1
    found, _ = known.tokens.select(graphs.nodes.values)
    keep = shared[found.values]
    node, token = found.row[keep], found.values[keep]
    width, n_devices, n_nodes = max(len(known.kinds), 1), len(logs), len(graphs.nodes.values)
    keys, entry = (graphs.nodes.row[node] * width + token).unique(return_inverse=True)
    device, token = keys // width, keys % width
    pattern = Pattern(Ragged.from_rows(device, token, n_devices).ptr, token, (n_devices, width))
    order = (entry * max(n_nodes, 1) + node).argsort()
    crow = Ragged.from_rows(entry[order], node[order], len(keys)).ptr
    nodes = Pattern(crow, node[order], (len(keys), n_nodes))
    sums = CSRTensor(nodes, torch.ones(nodes.nnz)) @ node_sums(logs, graphs)
    return DeviceTokens(pattern, nodes, entry_features(logs, pattern, sums, known))


def node_sums(logs: Logs, graphs: DeviceGraphs) -> Tensor:
    """(n_nodes, 4) float32: visits, chunks, sums of the sine and cosine of the time of day."""
    node, n = graphs.visits.values, len(graphs.nodes.values)
    angle = (logs.time % DAY).double() * (2 * math.pi / DAY)
    columns = [torch.ones(len(node), dtype=torch.float64), angle.sin(), angle.cos()]
    visits, sine, cosine = (
        torch.zeros(n, dtype=torch.float64).index_add_(0, node, column) for column in columns
    )
    chunks = graphs.graph.cross.crow.diff().double()
    return torch.stack([visits, chunks, sine, cosine], 1).float()


def node_features(logs: Logs, graphs: DeviceGraphs, known: Vocabulary) -> Tensor:
    """What is known of each node, (n_nodes, 7 + kinds of tokens) float32, about -1 to 1.

    As `entry_features`, and for each kind of tokens how rare those of the page are on average.
    """
    pages = graphs.nodes.values
    found, _ = known.tokens.select(pages)
    kind = torch.nn.functional.one_hot(known.kinds[found.values], known.n_kinds).float()
    sums = torch.zeros(2, len(pages), known.n_kinds)
    sums[0].index_add_(0, found.row, kind * known.idf[found.values, None])
    sums[1].index_add_(0, found.row, kind)
    visited = _visited(logs, graphs.nodes.row, node_sums(logs, graphs))
    return torch.cat([visited, sums[0] / sums[1].clamp(min=1)], 1)


def entry_features(logs: Logs, pattern: Pattern, sums: Tensor, known: Vocabulary) -> Tensor:
    """What is known of each entry, (nnz, 9 + kinds of tokens) float32, about -1 to 1.

    How rare the token is; whether two devices alone have it; logarithms of its visits and chunks;
    the root of its share of the device's visits; the mean sine and cosine of the time of day; the
    logarithm of the device's visits; whether it is of the first kind of devices; the token's kind.
    """
    token = pattern.col.long()
    rare = torch.stack([known.idf[token], (known.devices[token] == 2).float()], 1)
    kinds = torch.nn.functional.one_hot(known.kinds[token], known.n_kinds).float()
    return torch.cat([rare, _visited(logs, pattern.row.long(), sums), kinds], 1)


def _visited(logs: Logs, device: Tensor, sums: Tensor) -> Tensor:
    """How devices visited something, (k, 7), from sums as of `node_sums` (k, 4)."""
    visits, chunks, sine, cosine = sums.unbind(1)
    total = logs.page.lengths[device].float()
    columns = [
        visits.log1p() / 3,
        chunks.log1p() / 3,
        (visits / total).sqrt(),
        sine / visits,
        cosine / visits,
        total.log() / 8,
        (logs.kinds[device] == 0).float(),
    ]
    return torch.stack(columns, 1)
