"""Training a matcher under Lightning; data modules are in `graphnets.matching.training`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from graphnets.matching.features import FEATURES, PairFeatures
from graphnets.matching.logistic import LogisticMatcher
from graphnets.matching.logs import Logs, fingerprints
from graphnets.matching.matcher import HGNNMatcher
from graphnets.matching.metrics import average_precision
from graphnets.matching.pairs import same_user
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.tasks import TASKS, Decision, Task, task_logs, task_pairs
from graphnets.matching.tgce_matcher import TGCEMatcher
from graphnets.matching.training.episodes import Episode
from graphnets.matching.training.lightning import LogsDataModule, MatchingData
from graphnets.matching.vocabulary import Frequencies, Vocabulary, found_in
from sparsetorch.checks import check_count, check_tolerance
from sparsetorch.resumable.checkpoints import check_checkpoint

PAIRS_AT_ONCE = 1 << 18  # whose features are held
KEPT = {"matching", "state_dict", "hyper_parameters"}  # in a matcher's checkpoint, among others


class PairMatcher(L.LightningModule):
    """Trains a matcher on pairs of windows of people's logs, by cross-entropy.

    Pairs of devices of different kinds, the hard ones, count again in a mean of their own. What the
    logs at hand say of tokens' frequencies is kept in the checkpoint, for devices that come later.

    Args:
        network: "hgnn" or "tgce".
        levels: of the pages' prefixes.
        vectors: width of the tokens' vectors that the data module finds; 0 for none.
        width, layers, heads, weights, rounds, chunk, dropout: of `HGNNMatcher`; TGCE has sizes of
            its own, and a warning names what it does not heed.
        linear: whether a `LogisticMatcher` on the cheap features of pairs, fitted to all pairs of
            the training users' devices for each task, has as much of a say: the score of a pair is
            the sum of both log-odds. Takes a `LogsDataModule`.
        decisions: for each task the fields of a `Decision`, as cross-validation found them
            (`benchmarks/matching_xdt.py`), for training on all users; validation, if there is any,
            finds its own.
        lr: peak learning rate of AdamW; linear warm-up over 10 steps, then half a cosine to zero.
        weight_decay: of AdamW.
        cross_kind: weight of the mean over pairs of different kinds of devices.

    Raises:
        TypeError, ValueError: a number is none or out of range; heads or sizes do not fit.
    """

    def __init__(
        self,
        network: Literal["hgnn", "tgce"] = "hgnn",
        levels: int = 4,
        vectors: int = 0,
        width: int = 32,
        layers: int = 1,
        heads: Sequence[str] = ("shared",),
        weights: int = 8,
        rounds: int = 0,
        chunk: int = 6,
        dropout: float = 0.1,
        linear: bool = False,
        decisions: dict[str, dict[str, Any]] | None = None,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        cross_kind: float = 1.0,
    ) -> None:
        super().__init__()
        # A checkpoint with NumPy's numbers in it would not be read.
        levels = check_count("levels", levels, "level")
        vectors = check_count("vectors", vectors, "numbers a token", least=0)
        width = check_count("width", width, "numbers a node", least=0)
        layers = check_count("layers", layers, "layers", least=0)
        weights = check_count("weights", weights, "vector a device")
        rounds = check_count("rounds", rounds, "rounds", least=0)
        chunk = check_count("chunk", chunk, "visit")
        dropout, lr = checked_number("dropout", dropout), checked_number("lr", lr)
        weight_decay = checked_number("weight_decay", weight_decay)
        cross_kind = checked_number("cross_kind", cross_kind)
        linear = bool(linear)
        self.decisions = {
            task: Decision(**decisions[task]) for task in TASKS if decisions and task in decisions
        }
        decisions = {task: asdict(decision) for task, decision in self.decisions.items()} or None
        self.save_hyperparameters()
        if network == "tgce":
            warn_of_unheeded(self.hparams)
            self.matcher = TGCEMatcher(vectors, levels)
        else:
            self.matcher = HGNNMatcher(
                levels, vectors, width, layers, heads, weights, rounds, chunk, dropout
            )
        self.linear = nn.ModuleDict(
            {task: linear_matcher(task) for task in TASKS} if linear else {}
        )
        self.frequencies: Frequencies | None = None
        self.known: Vocabulary | None = None
        self.vectors: Tensor | None = None
        self.fingerprints = torch.zeros(0, dtype=torch.int64)  # of the training users' devices
        self.min_visits = 20  # of a week

    def setup(self, stage: str) -> None:
        """Take over what the data module knows of tokens."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, MatchingData):
            raise TypeError(f"datamodule: expected MatchingData, got {type(data).__name__}")
        self.check_levels(data.known.n_levels)
        self.known, self.vectors = data.known, data.vectors
        self.frequencies = data.known.frequencies()
        if isinstance(data, LogsDataModule):
            self._check_decisions(data)
            self.fingerprints = fingerprints(data.training)
            self.min_visits = data.hparams["min_visits"]

    def check_levels(self, n_levels: int) -> None:
        """Raise ValueError unless the network takes pages whose prefixes have so many levels."""
        if n_levels != self.hparams["levels"]:
            raise ValueError(
                f"levels: prefixes of these logs have {n_levels} levels, the network takes "
                f"{self.hparams['levels']}; it can be used on logs of the kind it was trained on"
            )

    def _check_decisions(self, data: LogsDataModule) -> None:
        folds = {name: data.hparams[name] for name in ("fold", "validation")}
        left_out = {name: fold for name, fold in folds.items() if fold is not None}
        if self.hparams["decisions"] and left_out:
            raise ValueError(
                f"decisions: those given have seen the labels of all users, and {left_out} leaves "
                "some out for a test; take --model.decisions null"
            )

    def on_fit_start(self) -> None:
        """Fit what is linear: it depends on the training users alone."""
        if not self.linear:
            return
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(data, LogsDataModule):
            raise TypeError(f"linear: expected a LogsDataModule, got {type(data).__name__}")
        for task in TASKS:
            own = task_logs(data.training, task, data.hparams["min_visits"])
            pairs = task_pairs(own, task)
            labels = same_user(own.users, pairs)
            self._linear(task).fit(PairFeatures(own)(pairs), labels)

    def _linear(self, task: Task) -> LogisticMatcher:
        matcher = self.linear[task]
        assert isinstance(matcher, LogisticMatcher)
        return matcher

    def on_train_start(self) -> None:
        """Draw the episodes of an epoch that is gone on with: Lightning calls nothing else."""
        self.on_train_epoch_start()

    def on_train_epoch_start(self) -> None:
        """Draw other episodes than in the epochs before."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self.eval()
        data.begin_epoch(self.current_epoch, self._scores_of_all)
        self.train()

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """One episode."""
        devices = self.matcher(episode.logs, self.known, self.vectors)
        scores = self.matcher.score(devices, episode.pairs)
        labels, weights = (t.to(scores.device) for t in (episode.labels, episode.weights))
        losses = nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none")
        first, second = episode.logs.kinds[episode.pairs].to(scores.device).unbind(1)
        loss = _mean(losses, weights)
        loss = loss + self.hparams["cross_kind"] * _mean(losses, weights * (first != second))
        self.log("train/loss", loss, prog_bar=True, batch_size=1)
        return loss

    def validation_step(self, logs: Logs, batch_idx: int) -> None:
        """All tasks on the validation users' devices: average precision, and how to decide."""
        data = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        own_data = isinstance(data, LogsDataModule)
        for task in TASKS:
            own = data.validation_logs(task) if own_data else task_logs(logs, task, self.min_visits)
            pairs = task_pairs(own, task)
            labels = same_user(own.users, pairs)
            if not bool(labels.any()) or bool(labels.all()):
                warnings.warn(
                    f"validation: task {task} has no true and false pairs among {len(own)} "
                    "devices, so that the checkpoint will not know how to decide it",
                    stacklevel=2,
                )
                continue
            known = data.known_of(task) if own_data else self.known
            scores = self._scores_of_all(own, pairs, known, task)
            shift = not (self.matcher.transductive or self.linear)
            self.decisions[task] = Decision.fit(scores, labels, len(own), shift)
            precision = average_precision(scores, labels)
            self.log(f"val/ap_{task}", precision, prog_bar=task == "B", batch_size=1)

    def scores(
        self,
        logs: Logs,
        pairs: Tensor,
        known: Vocabulary | None = None,
        task: Task | None = None,
    ) -> Tensor:
        """Log-odds (k,) of pairs (k, 2) of devices of logs.

        Args:
            logs, pairs: of the devices; a transductive matcher sees all of `logs`.
            known: their vocabulary; that of the data module when not given.
            task: whose linear matcher has a say, if there is one.
        """
        known = known or self.known
        if known is None:
            raise ValueError("known: expected the logs' vocabulary; this matcher was just loaded")
        devices = encode_devices(self.matcher, logs, known, self.token_vectors(known))
        scores = score_pairs(self.matcher, devices, pairs)
        return scores + self.linear_scores(logs, pairs, task) if task else scores

    def _scores_of_all(
        self,
        logs: Logs,
        pairs: Tensor,
        known: Vocabulary | None = None,
        task: Task | None = None,
    ) -> Tensor:
        """The first process's `scores` in all of a training, so that they draw and decide alike.

        Theirs differ: by what BatchNorm saw in a process's last step, and on a GPU by rounding. All
        of them score, so that none waits for longer than their group's timeout.
        """
        found: Tensor | ValueError
        try:
            found = self.scores(logs, pairs, known, task)
        except ValueError as error:  # raised by all at once, so that none waits for the others
            found = error
        found = self.trainer.strategy.broadcast(found)
        if isinstance(found, ValueError):
            raise found
        return found

    def linear_scores(self, logs: Logs, pairs: Tensor, task: Task) -> Tensor:
        """Log-odds of the task's linear matcher, (k,), block by block; zeros if there is none."""
        if task not in self.linear:
            return torch.zeros(len(pairs))
        features, linear = PairFeatures(logs), self._linear(task)
        with torch.no_grad():
            return torch.cat(
                [linear(features(some)).float() for some in pairs.split(PAIRS_AT_ONCE)]
            )

    def configure_optimizers(self) -> Any:
        """AdamW, with a warm-up and half a cosine over the trainer's steps."""
        h = self.hparams
        optimizer = torch.optim.AdamW(self.parameters(), lr=h["lr"], weight_decay=h["weight_decay"])
        steps = int(self.trainer.estimated_stepping_batches)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
        schedule = torch.optim.lr_scheduler.ChainedScheduler([warm, fall])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def token_vectors(self, known: Vocabulary) -> Tensor | None:
        """The vectors of another vocabulary's tokens, zeros for new ones; None without vectors."""
        if self.vectors is None or self.frequencies is None or known is self.known:
            return self.vectors
        found = self.vectors.new_zeros(len(known.kinds), self.vectors.shape[1])
        for kind in range(known.n_kinds):
            ours, theirs = known.kinds == kind, self.frequencies.kinds == kind
            numbers = theirs.nonzero()[:, 0]
            place = found_in(self.frequencies.ids[theirs], known.ids[ours], numbers)
            found[ours] = torch.where((place >= 0)[:, None], self.vectors[place], 0.0)
        return found

    def trained_on(self, logs: Logs) -> int:
        """How many of these devices are those that it was trained on, by their visits."""
        return int(torch.isin(fingerprints(logs), self.fingerprints).sum())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the tokens' frequencies and vectors, what a week is, and how to decide."""
        known = self.frequencies
        checkpoint["matching"] = {
            "frequencies": None if known is None else asdict(known),
            "vectors": self.vectors,
            "fingerprints": self.fingerprints,
            "min_visits": self.min_visits,
            "decisions": {task: asdict(decision) for task, decision in self.decisions.items()},
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take back what `on_save_checkpoint` kept."""
        kept = checkpoint["matching"]
        known = kept["frequencies"]
        self.frequencies = None if known is None else Frequencies(**known)
        self.vectors = kept["vectors"]
        self.fingerprints = kept.get("fingerprints", self.fingerprints)
        self.min_visits = kept.get("min_visits", self.min_visits)  # older ones have none
        self.decisions = {task: Decision(**values) for task, values in kept["decisions"].items()}


def linear_matcher(task: Task) -> LogisticMatcher:
    """A linear matcher on `PairFeatures`; in task B pairs of one kind have weights of their own."""
    by = FEATURES.index("same_kind") if task == "B" else None
    return LogisticMatcher(len(FEATURES), by=by)


def checked_number(name: str, value: float) -> float:
    """A finite number of at least 0 as a float; TypeError or ValueError if it is none."""
    check_tolerance(name, value)
    return float(value)


def warn_of_unheeded(given: Mapping[str, Any]) -> None:
    """Warn of arguments of `PairMatcher` that TGCE does not heed, if they are not the default."""
    defaults = signature(PairMatcher).parameters
    names = ("width", "layers", "heads", "weights", "rounds", "chunk", "dropout")
    changed = [
        f"{name}={value}"
        for name in names
        if (value := given[name]) != (default := defaults[name].default)
        and not (name == "heads" and tuple(value) == default)
    ]
    if changed:
        warnings.warn(f"network: TGCE does not heed {', '.join(changed)}", stacklevel=3)


def load_matcher(path: str | Path) -> PairMatcher:
    """A trained matcher from a Lightning checkpoint, in evaluation mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is cut short, damaged, or another one.
    """
    check_checkpoint(path)
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"checkpoint: {path} is none of a PairMatcher, or has objects in it that are not read"
        ) from error
    if not (isinstance(kept, dict) and kept.keys() >= KEPT):
        raise ValueError(
            f"checkpoint: {path} is none of a PairMatcher; examples/train_matcher.py writes such"
        )
    return PairMatcher.load_from_checkpoint(path, map_location="cpu", weights_only=True).eval()


def _mean(losses: Tensor, weights: Tensor) -> Tensor:
    return (losses * weights).sum() / weights.sum().clamp(min=1e-12)


def train(module: PairMatcher, data: MatchingData, epochs: int = 1) -> None:
    """Train on the CPU without logs or checkpoints, for comparisons; then in evaluation mode."""
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, data)
    module.eval()
