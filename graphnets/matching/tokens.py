"""What each device shares with others: a sparse matrix of devices by tokens.

Whatever is learned about a device's tokens is a value there. Tokens of one device alone are left
out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from graphnets.matching.graphs import DeviceGraphs
from graphnets.matching.logs import DAY, Logs
from graphnets.matching.vocabulary import Vocabulary, steps_of
from graphnets.ragged import Ragged
from sparsetorch import Pattern


@dataclass(frozen=True, eq=False)
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
    of_nodes, _ = known.tokens.select(graphs.nodes.values)
    nodes, tokens = [of_nodes.row], [of_nodes.values]
    sums = [node_sums(logs, graphs)[of_nodes.row]]
    for level in range(known.n_levels):
        visits, steps = steps_of(logs, level)
        nodes.append(graphs.visits.values[visits])
        tokens.append(known.find(known.n_levels + 1 + level, steps))
        sums.append(visit_sums(logs)[visits])
    node, token = torch.cat(nodes), torch.cat(tokens)
    keep = (token >= 0) & (known.here[token] > 1)
    return _assembled(logs, graphs, known, node[keep], token[keep], torch.cat(sums)[keep])


def _assembled(
    logs: Logs, graphs: DeviceGraphs, known: Vocabulary, node: Tensor, token: Tensor, sums: Tensor
) -> DeviceTokens:
    """From tokens at nodes, some several times, and what is to be summed over them, (k, 4)."""
    width, n_devices, n_nodes = max(len(known.kinds), 1), len(logs), len(graphs.nodes.values)
    keys, entry = (graphs.nodes.row[node] * width + token).unique(return_inverse=True)
    device, column = keys // width, keys % width
    pattern = Pattern(Ragged.from_rows(device, column, n_devices).ptr, column, (n_devices, width))
    behind = (entry * max(n_nodes, 1) + node).unique()
    row, col = behind // max(n_nodes, 1), behind % max(n_nodes, 1)
    nodes = Pattern(Ragged.from_rows(row, col, len(keys)).ptr, col, (len(keys), n_nodes))
    total = torch.zeros(len(keys), 4).index_add_(0, entry, sums)
    return DeviceTokens(pattern, nodes, entry_features(logs, pattern, total, known))


def visit_sums(logs: Logs) -> Tensor:
    """(n_visits, 4) float32: one, one, and the sine and cosine of the time of day."""
    angle = (logs.time % DAY).double() * (2 * math.pi / DAY)
    one = torch.ones_like(angle)
    return torch.stack([one, one, angle.sin(), angle.cos()], 1).float()


def node_sums(logs: Logs, graphs: DeviceGraphs) -> Tensor:
    """(n_nodes, 4) float32: visits, chunks, sums of the sine and cosine of the time of day."""
    sums = torch.zeros(len(graphs.nodes.values), 4)
    sums.index_add_(0, graphs.visits.values, visit_sums(logs))
    sums[:, 1] = graphs.graph.cross.crow.diff()
    return sums


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
