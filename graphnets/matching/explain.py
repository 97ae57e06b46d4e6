"""Why two devices are linked: what they share and how much it counts, and what attends to what."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from graphnets.cross_attention import CrossAttention
from graphnets.matching.devices import Devices, matches
from graphnets.matching.logs import Logs
from graphnets.matching.pairs import check_pair
from graphnets.matching.vocabulary import Vocabulary, steps_of

MANY = 5  # names looked at, for each that is returned


@dataclass(frozen=True)
class Evidence:
    """One thing that two devices share.

    Attributes:
        token: its number in the vocabulary.
        share: of the mean cosine of both devices, between 0 and 1.
        devices: how many have it.
        kind: of the token, in words.
        name: of a page that it stands for, or of both pages of a step.
    """

    token: int
    share: float
    devices: int
    kind: str
    name: str


def why_linked(
    devices: Devices, pair: tuple[int, int], logs: Logs, known: Vocabulary, k: int = 10
) -> list[Evidence]:
    """What counts most for two devices, the most first.

    Args:
        devices: encoded by a matcher with a "shared" head.
        pair: their numbers.
        logs: of the devices, for names.
        known: the vocabulary that they were encoded with.
        k: largest number of results.

    Raises:
        ValueError: the devices have no weights of tokens, or are not two that exist.
    """
    check_pair(pair, len(devices))
    if not devices.weights.shape[1]:
        raise ValueError('devices: expected those of a matcher with a "shared" head')
    found = matches(devices.tokens, devices.kinds.new_tensor([pair]))
    first, second = found.first[0], found.second[0]
    share = (devices.weights[first] * devices.weights[second]).mean(1)
    share, order = (share / share.sum().clamp(min=1e-12)).sort(descending=True)
    evidence: dict[str, Evidence] = {}
    for token, part in zip(devices.tokens.values[first[order]].tolist(), share.tolist()):
        name = token_name(logs, known, token)
        if name in evidence:  # an address and the words in it say the same
            evidence[name] = replace(evidence[name], share=evidence[name].share + part)
        elif len(evidence) < MANY * k:
            devices_with = int(known.here[token])
            evidence[name] = Evidence(token, part, devices_with, kind_name(known, token), name)
    return sorted(evidence.values(), key=lambda item: -item.share)[:k]


def kind_name(known: Vocabulary, token: int) -> str:
    """What kind of thing a token is, in words."""
    kind, levels = int(known.kinds[token]), known.n_levels
    if kind < levels:
        return f"address, level {kind}"
    return "word" if kind == levels else f"step, level {kind - levels - 1}"


def token_name(logs: Logs, known: Vocabulary, token: int) -> str:
    """The name of a page that a token stands for, of both pages of a step, or numbers."""
    kind, levels = int(known.kinds[token]), known.n_levels
    if kind <= levels:
        place = (known.tokens.values == token).nonzero()[0, 0]
        return _page_name(logs, int(known.tokens.row[place]), kind)
    visits, steps = steps_of(logs, kind - levels - 1)
    visit = int(visits[(steps == known.ids[token]).nonzero()[0, 0]])
    level = kind - levels - 1
    before = visit - 1
    while int(logs.pages.prefixes[logs.page.values[before], level]) < 0:
        before -= 1  # visits without such a prefix are passed over
    ends = (int(logs.page.values[v]) for v in (before, visit))
    return " → ".join(_page_name(logs, page, level) for page in ends)


def _page_name(logs: Logs, page: int, level: int) -> str:
    """The first parts of a page's name, as many as the level of a prefix has."""
    if not logs.pages.names:
        return f"page {page}"
    return "/".join(logs.pages.names[page].split("/")[: level + 1])


@dataclass(frozen=True, eq=False)
class Attention:
    """What the nodes of one device find in another.

    Attributes:
        weights: (m, n), rows of one: how much node i of the first attends to node j of the second.
        filter: (m,), how much node i counts, from 0 to 1.
    """

    weights: Tensor
    filter: Tensor


@torch.no_grad()
def attention(head: CrossAttention, devices: Devices, pair: tuple[int, int]) -> Attention:
    """The attention and the filter of a "cross" head between two encoded devices.

    Raises:
        ValueError: the devices have no embeddings of nodes, or are not two that exist.
    """
    check_pair(pair, len(devices))
    if not devices.nodes.values.shape[1]:
        raise ValueError('devices: expected those of a matcher with a "cross" head')
    x, y = (devices.nodes[d] for d in pair)
    scores = head.keys(x) @ head.keys(y).T
    return Attention(scores.softmax(1), torch.sigmoid(head.filter(x))[:, 0])


@dataclass(frozen=True)
class AttendedPages:
    """A page of one device, and one of another device that it attends to.

    Attributes:
        page, other: their names.
        weight: how much of the page's attention the other has, from 0 to 1.
        filter: how much the page counts in the score, from 0 to 1.
    """

    page: str
    other: str
    weight: float
    filter: float


def attended_pages(
    head: CrossAttention, devices: Devices, pair: tuple[int, int], logs: Logs, k: int = 10
) -> list[AttendedPages]:
    """What pages of the first device attend to most in the second, by weight times filter.

    Each page comes once, with the one that has most of its attention.

    Args:
        head: "cross", of the matcher's `heads`.
        devices: encoded by this matcher.
        pair: their numbers; the other way round it is the second device that attends.
        logs: of the devices, for names: those of the pages, as far as their prefixes go.
        k: largest number of results.

    Raises:
        ValueError: as `attention`, or these are not the logs of the devices; k is below 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1 result, got {k}")
    if len(logs) != len(devices):
        raise ValueError(f"logs: expected those of {len(devices)} devices, got {len(logs)}")
    found = attention(head, devices, pair)
    pages = [logs.page[d].unique() for d in pair]  # nodes are a device's pages, by number
    if tuple(map(len, pages)) != found.weights.shape:
        raise ValueError(
            f"logs: expected those of the devices, with {tuple(found.weights.shape)} pages, got "
            f"{tuple(map(len, pages))}"
        )
    weight, other = found.weights.max(1)
    level = logs.pages.prefixes.shape[1] - 1
    best = []
    for i in (weight * found.filter).topk(min(k, len(weight))).indices.tolist():
        first, second = (
            _page_name(logs, int(page), level) for page in (pages[0][i], pages[1][other[i]])
        )
        best.append(AttendedPages(first, second, float(weight[i]), float(found.filter[i])))
    return best
