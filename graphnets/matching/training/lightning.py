"""What a matcher is trained on under Lightning: given pairs, candidates, windows of logs."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from graphnets.matching.candidates import Candidates, hard_pairs
from graphnets.matching.logs import Logs, week_slices
from graphnets.matching.splits import user_folds
from graphnets.matching.tasks import Task, task_logs, task_vocabulary
from graphnets.matching.training.episodes import Episode, PairEpisodes, WindowEpisodes
from graphnets.matching.vectors import token_vectors
from graphnets.matching.vocabulary import Vocabulary, vocabulary
from graphnets.matching.xdt import load_xdt
from sparsetorch.checks import check_count, checked_integer
from sparsetorch.resumable import ResumableLoader
from sparsetorch.resumable.lightning import ResumableDataModule

LEAST_KNOWN = 0.5  # of all visits, that training should know the pages of
Score = Callable[[Logs, Tensor], Tensor]  # log-odds (k,) of pairs (k, 2) of the logs' devices


class MatchingData(ResumableDataModule):
    """What a data module gives a matcher to train on, whatever it comes from.

    Attributes:
        known: a vocabulary of the logs; no label is looked at.
        vectors: of its tokens, or None.
        episodes: for training.
    """

    known: Vocabulary
    vectors: Tensor | None = None
    episodes: WindowEpisodes | PairEpisodes

    def begin_epoch(self, epoch: int, score: Score) -> None:
        """Draw this epoch's episodes, once; `score` is the matcher's, as it is by now."""
        self.episodes.epoch = epoch

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Logs stay where they are: a matcher moves what it makes of them."""
        return batch

    def train_dataloader(self) -> ResumableLoader[Episode]:
        """Episodes, one at a time; each process has its share."""
        order = range(len(self.episodes))
        if dist.is_available() and dist.is_initialized():
            order = DistributedSampler(self.episodes, shuffle=False)
        return self.resumable(self.episodes, order)


class PairsData(MatchingData):
    """Given pairs of devices to train on, as candidates with known answers are.

    Args:
        logs, pairs, labels, batch, seed: of `PairEpisodes`.
        known: the vocabulary.
        vectors: (n_tokens, width) of its tokens, or None.
    """

    def __init__(
        self,
        logs: Logs,
        pairs: Tensor,
        labels: Tensor,
        known: Vocabulary,
        vectors: Tensor | None = None,
        batch: int = 256,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.known, self.vectors = known, vectors
        self.episodes = PairEpisodes(logs, pairs, labels, batch, seed)


class CandidatesData(MatchingData):
    """True candidates of devices, and false ones drawn anew each epoch.

    From the second epoch on, some false ones are those that the matcher, as it is by then, finds
    most alike: see `hard_pairs`. They are kept in checkpoints, so that a run that was stopped
    within an epoch goes on with the same ones. Each training begins with the same ones, whatever
    was trained on this object before.

    Args:
        logs: of the devices.
        candidates: of these devices.
        known, vectors, batch, seed: of `PairsData`.
        negatives, hardest: of `hard_pairs`.
        once: of `PairEpisodes`.
    """

    episodes: PairEpisodes

    def __init__(
        self,
        logs: Logs,
        candidates: Candidates,
        known: Vocabulary,
        vectors: Tensor | None = None,
        negatives: int = 3,
        hardest: float = 0.5,
        batch: int = 256,
        seed: int = 0,
        once: bool = True,
    ) -> None:
        super().__init__()
        self.logs, self.candidates, self.known, self.vectors = logs, candidates, known, vectors
        self.negatives, self.hardest, self.seed = negatives, hardest, seed
        self.episodes = PairEpisodes(logs, *self._pairs(0), batch, seed, once)
        self.drawn = 0  # the epoch whose pairs these are

    def begin_epoch(self, epoch: int, score: Score) -> None:
        """Draw this epoch's false pairs."""
        super().begin_epoch(epoch, score)
        if epoch == self.drawn:
            return
        self.episodes.pairs, self.episodes.labels = self._pairs(epoch, score)
        self.drawn = epoch

    def _pairs(self, epoch: int, score: Score | None = None) -> tuple[Tensor, Tensor]:
        """An epoch's pairs and labels; in the first one no matcher has learned anything."""
        return hard_pairs(
            self.candidates,
            self.logs.users,
            self.negatives,
            self.seed * 1_000_003 + epoch if epoch else self.seed,
            partial(score, self.logs) if epoch and score and self.hardest else None,
            self.hardest,
        )

    def state_dict(self) -> dict[str, Any]:
        """Which episodes are done, and the pairs of this epoch."""
        pairs, labels = self.episodes.pairs, self.episodes.labels
        return super().state_dict() | {"drawn": self.drawn, "pairs": pairs, "labels": labels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the pairs of `state_dict`."""
        super().load_state_dict(state_dict)
        self.drawn = state_dict["drawn"]
        self.episodes.pairs, self.episodes.labels = state_dict["pairs"], state_dict["labels"]


class LogsDataModule(MatchingData):
    """Windows of training users' logs to train on, weeks of validation users' to validate on.

    Args:
        path: of an `xdt.npz`.
        folds, fold: users are split in so many folds; this one is left out, for a test.
        validation: the fold of the validation users; none when not given, and then training has no
            validation, and the checkpoint does not know how to decide, unless told.
        fold_seed: of the split.
        episodes: an epoch.
        users, per_user, days, min_visits, negatives, seed: of `WindowEpisodes`.
        vectors: width of the tokens' vectors; 0 for none.
        transductive: whether frequencies and vectors of tokens are those of all logs, the left-out
            users' too, whose labels are not looked at; else of the training users'.

    Raises:
        TypeError, ValueError: a number is none or out of range, there are no such folds, or one is
            both.

    Warns:
        UserWarning: most visits are in weeks of fewer than `min_visits`, whose pages are not known.
    """

    def __init__(
        self,
        path: str | Path,
        folds: int = 5,
        fold: int | None = 0,
        validation: int | None = None,
        fold_seed: int = 0,
        episodes: int = 50,
        users: int = 24,
        per_user: int = 5,
        days: tuple[float, float] = (2.0, 14.0),
        min_visits: int = 20,
        negatives: int = 0,
        vectors: int = 0,
        seed: int = 0,
        transductive: bool = False,
    ) -> None:
        super().__init__()
        # A checkpoint with a Path or NumPy's numbers in it would not be read.
        path, transductive = str(path), bool(transductive)
        folds = check_count("folds", folds, "folds", least=2)
        fold = checked_fold("fold", fold, folds)
        validation = checked_fold("validation", validation, folds)
        if fold is not None and fold == validation:
            raise ValueError(
                f"validation: fold {fold} is left out for a test, which nothing may be chosen by"
            )
        fold_seed, seed = checked_integer("fold_seed", fold_seed), checked_integer("seed", seed)
        episodes = check_count("episodes", episodes, "episode")
        users = check_count("users", users, "person")
        per_user = check_count("per_user", per_user, "windows", least=2)
        days = (float(days[0]), float(days[1]))
        min_visits = check_count("min_visits", min_visits, "visit")
        negatives = check_count("negatives", negatives, "pairs", least=0)
        vectors = check_count("vectors", vectors, "numbers a token", least=0)
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Read the logs and split their users."""
        if hasattr(self, "known"):
            return
        h = self.hparams
        logs = load_xdt(Path(h["path"]))
        fold = user_folds(logs.users, h["folds"], h["fold_seed"], logs.kinds)
        left_out = torch.tensor([f for f in (h["fold"], h["validation"]) if f is not None])
        self.training = logs.select((~torch.isin(fold, left_out)).nonzero()[:, 0])
        self.counted = logs if h["transductive"] else self.training
        weeks = week_slices(self.counted, h["min_visits"])
        self._check_weeks(len(weeks.time))
        self.known = vocabulary(weeks)
        if h["vectors"]:
            self.vectors = token_vectors(weeks, self.known, h["vectors"])
        self.validation = logs.select(
            (fold == (-1 if h["validation"] is None else h["validation"])).nonzero()[:, 0]
        )
        self.episodes = WindowEpisodes(
            self.training,
            h["episodes"],
            h["users"],
            h["per_user"],
            h["days"],
            h["min_visits"],
            h["negatives"],
            h["seed"],
        )

    def _check_weeks(self, visits: int) -> None:
        """Tokens are those of weeks with so many visits: warn if that is not most of them."""
        everything, least = len(self.counted.time), self.hparams["min_visits"]
        if visits < LEAST_KNOWN * everything:
            warnings.warn(
                f"min_visits: only {visits} of {everything} visits are in weeks of at least "
                f"{least} visits, and training knows no other pages; take a smaller number",
                stacklevel=3,
            )

    def validation_logs(self, task: Task) -> Logs:
        """The devices that a task is validated on."""
        return task_logs(self.validation, task, self.hparams["min_visits"])

    def known_of(self, task: Task) -> Vocabulary:
        """The vocabulary to validate a task with."""
        least = self.hparams["min_visits"]
        if not self.hparams["transductive"]:
            return task_vocabulary(self.validation, task, least, self.known.frequencies())
        return task_vocabulary(self.counted, task, least) if task == "A" else self.known

    def val_dataloader(self) -> DataLoader[Logs] | list[Any]:
        """The validation users' logs, in one piece."""
        if self.hparams["validation"] is None:
            return []
        return DataLoader([self.validation], batch_size=None)  # pyright: ignore


def checked_fold(name: str, number: int | None, folds: int) -> int | None:
    """The number of a fold as an int, or None; ValueError if there is no such fold."""
    if number is None:
        return None
    if number not in range(folds):
        raise ValueError(f"{name}: expected a fold from 0 to {folds - 1}, got {number}")
    return int(number)
