"""Cheap features of pairs of devices: what two logs share, when, and how rare that is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from graphnets.matching.expansion import crowding, expanded, ranks, rescored
from graphnets.matching.logs import HOUR, WEEK, Logs
from graphnets.matching.neighbours import Neighbours, nearest
from graphnets.matching.pairs import checked_pairs
from graphnets.matching.products import pair_cosines, shared_tokens
from graphnets.matching.rhythm import active_slots, rhythm
from graphnets.matching.tfidf import TfIdf

SMALL = 0.02  # added to cosines before logarithms
OF_A_VIEW = ("cosine", "log_cosine", "local", "log_local", "best_rank", "worst_rank")
OF_TIME = ("week_hours", "day_hours", "same_hours", "same_minutes", "overlap", "gap")
OF_SIZE = ("shorter", "longer", "fewer_tokens", "more_tokens")
OF_TOKENS = ("shared", "shared_idf", "rarest_idf")


class View(NamedTuple):
    """One description of all devices, and each one's neighbours of either sort of kind."""

    vectors: sp.csr_array
    same: Neighbours
    other: Neighbours


class PairFeatures:
    """Features of pairs of the devices of some logs; no label is used.

    For each view (vectors of devices), and for the same with each vector expanded by its nearest
    neighbours of the same kind, once and again: the cosine and its logarithm, the same less and
    over the crowding of both devices among the partner's kind, and the logarithms of the places
    among each other's neighbours. Then the cosines of activity over hours, overlap of and gap
    between their times (weeks), logarithms of sizes, and shared tokens, of the last view. Ideas of
    the CIKM Cup 2016 teams (M. C. Phan, A. Sun, Y. Tay, SIGIR 2017); expansion and crowding as in
    `graphnets.matching.expansion`.

    Args:
        logs: the devices, all that are at hand: neighbours are sought among them.
        views: by name, fitted on `logs` unless they are; domains, words, and all, when None.
        learned: more views, by name: unit rows (n, d) for these devices.
        k: neighbours that crowding is the mean of.
        depth: neighbours kept, at least k, beyond which places are not told apart.
        expansion: neighbours that are added to a vector.
        rounds: how often; each makes the vectors up to `1 + expansion` times as long, so that for
            100,000 devices one or none is in order.

    Attributes:
        names: of the features, in order.

    Raises:
        ValueError: there is no view, or a number is below one.
    """

    def __init__(
        self,
        logs: Logs,
        views: Mapping[str, TfIdf] | None = None,
        learned: Mapping[str, sp.csr_array] | None = None,
        k: int = 20,
        depth: int = 50,
        expansion: int = 3,
        rounds: int = 2,
    ) -> None:
        for name, number in (("k", k), ("depth", depth), ("expansion", expansion)):
            if number < 1:
                raise ValueError(f"{name}: expected at least one neighbour, got {number}")
        if rounds < 0:
            raise ValueError(f"rounds: expected none or more, got {rounds}")
        if views is not None and not views:
            raise ValueError("views: expected at least one, got none")
        self.logs, self.k = logs, k
        self.views: dict[str, View] = {}
        for name, tfidf in (views or default_views()).items():
            if not tfidf.fitted:
                tfidf.fit(logs)
            self._tokens, self._idf = tfidf.transform(logs), tfidf.idf
            self._add(name, self._tokens, max(depth, expansion, k), expansion, rounds)
        for name, vectors in (learned or {}).items():
            self._add(name, vectors, max(depth, expansion, k), expansion, rounds)
        self._week, self._day = rhythm(logs, 168), rhythm(logs, 24)
        self._hours, self._minutes = active_slots(logs), active_slots(logs, HOUR // 6)
        self.names = feature_names(tuple(self.views))

    def _add(
        self, name: str, vectors: sp.csr_array, depth: int, expansion: int, rounds: int
    ) -> None:
        kinds = self.logs.kinds
        same, other = (nearest(vectors, depth, kinds, among) for among in ("same", "other"))
        view = self.views[name] = View(vectors, same, other)
        for turn in range(1, rounds + 1):
            view = self.views[f"{name}_expanded_{turn}"] = _expanded(view, expansion)

    def __call__(self, pairs: Tensor) -> Tensor:
        """Features of canonical pairs (p, 2) int64, (p, n_features) float32, all finite.

        Raises:
            ValueError: pairs are not as `checked_pairs` wants them.
        """
        checked_pairs(pairs, len(self.logs))
        columns = [self._of_view(view, pairs) for view in self.views.values()]
        columns += [self._of_time(pairs), self._of_size(pairs)]
        columns += [shared_tokens(self._tokens, self._idf, pairs).log1p()]
        columns += [self._same_kind(pairs).float()[:, None]]
        return torch.cat(columns, 1)

    def _same_kind(self, pairs: Tensor) -> Tensor:
        first, second = self.logs.kinds[pairs].unbind(1)
        return first == second

    def _of_view(self, view: View, pairs: Tensor) -> Tensor:
        cosine = pair_cosines(view.vectors, pairs)
        same = self._same_kind(pairs)
        crowd = torch.where(
            same[:, None], crowding(view.same, self.k)[pairs], crowding(view.other, self.k)[pairs]
        )
        place = torch.where(same[:, None], ranks(view.same, pairs), ranks(view.other, pairs))
        place = place.float().log1p()
        log_crowd = (crowd + SMALL).log().mean(1)
        log_cosine = (cosine + SMALL).log()
        return torch.stack(
            [
                cosine,
                log_cosine,
                cosine - crowd.mean(1),
                log_cosine - log_crowd,
                place.amin(1),
                place.amax(1),
            ],
            1,
        )

    def _of_time(self, pairs: Tensor) -> Tensor:
        first, second = pairs.unbind(1)
        begin, end = _spans(self.logs)
        overlap = torch.minimum(end[first], end[second]) - torch.maximum(
            begin[first], begin[second]
        )
        shorter = torch.minimum((end - begin)[first], (end - begin)[second])
        return torch.stack(
            [
                (self._week[first] * self._week[second]).sum(1),
                (self._day[first] * self._day[second]).sum(1),
                pair_cosines(self._hours, pairs),
                pair_cosines(self._minutes, pairs),
                (overlap.clamp(min=0) / (shorter + HOUR)).float(),
                (-overlap / WEEK).clamp(0, 4).float(),
            ],
            1,
        )

    def _of_size(self, pairs: Tensor) -> Tensor:
        tokens = torch.from_numpy(np.diff(self._tokens.indptr))
        sizes = [self.logs.page.lengths, tokens]
        both = [size.float().log1p()[pairs] for size in sizes]
        return torch.cat([torch.stack([size.amin(1), size.amax(1)], 1) for size in both], 1)


def feature_names(views: Sequence[str]) -> tuple[str, ...]:
    """The names of the features of some views, in order."""
    of_views = [f"{view}_{feature}" for view in views for feature in OF_A_VIEW]
    return (*of_views, *OF_TIME, *OF_SIZE, *OF_TOKENS, "same_kind")


def view_names(names: Iterable[str], rounds: int) -> tuple[str, ...]:
    """The names of views, each followed by those of its expansions."""
    turns = ["", *(f"_expanded_{turn}" for turn in range(1, rounds + 1))]
    return tuple(name + turn for name in names for turn in turns)


def default_views() -> dict[str, TfIdf]:
    """Domains alone, words alone, and all together."""
    return {"domain": TfIdf([0], words=False), "words": TfIdf([]), "all": TfIdf()}


def _expanded(view: View, expansion: int) -> View:
    few = Neighbours(view.same.index[:, :expansion], view.same.score[:, :expansion])
    vectors = expanded(view.vectors, few)
    return View(vectors, rescored(view.same, vectors), rescored(view.other, vectors))


def _spans(logs: Logs) -> tuple[Tensor, Tensor]:
    """The times of the first and last visits, (n,) int64; zero for a device without a visit."""
    some = logs.page.lengths > 0
    begin, end = torch.zeros(2, len(logs), dtype=torch.int64)
    begin[some] = logs.time[logs.page.ptr[:-1][some]]
    end[some] = logs.time[logs.page.ptr[1:][some] - 1]
    return begin, end


FEATURES = feature_names(view_names(default_views(), 2))  # of PairFeatures(logs)
