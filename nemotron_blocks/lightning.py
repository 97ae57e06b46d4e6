"""Training a hybrid model under Lightning: the module, and texts as packed tokens."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from nemotron_blocks import text
from nemotron_blocks.balance import sequence_balance_loss
from nemotron_blocks.batches import Batch, TokenBatches, targets_ahead
from nemotron_blocks.config import HybridConfig, check_number
from nemotron_blocks.loss import IGNORED, next_token_loss
from nemotron_blocks.model import HybridLM
from nemotron_blocks.parallel import piece, token_mean, whole_row
from nemotron_blocks.parallel.divide import DIVIDED, divide
from nemotron_blocks.parallel.gradients import total_norm
from nemotron_blocks.parallel.weights import is_spread
from nemotron_blocks.router import collect_routings, update_biases
from nemotron_blocks.schedule import warmup_stable_decay
from nemotron_blocks.token_file import TokenFile, write_tokens
from nemotron_blocks.tokenizer import BPETokenizer, ByteTokenizer, Tokenizer
from sparsetorch.checks import check_count
from sparsetorch.resumable import ResumableLoader
from sparsetorch.resumable.lightning import ResumableDataModule


class HybridModule(L.LightningModule):
    """Trains a `HybridLM` to say the next token, and the tokens behind that.

    The loss is the mean cross-entropy of the next token, plus `ahead` times that of the tokens
    ahead (mean over depths), plus `balance` times the sequence-level balance loss (mean over
    routers). Routers' biases move after each step, by the loads of all processes.

    Args:
        config: of the model; a dictionary of its fields will do, as checkpoints have it.
        lr: peak learning rate of AdamW (0.9, 0.95).
        weight_decay: of matrices; norms, biases and the scan's own parameters do not decay.
        warmup: steps of a linear rise.
        decay: share of the steps, the last ones, in which the rate falls as 1 - sqrt.
        floor: of the rate, as a share of its peak.
        ahead: weight of multi-token prediction (0.3 in Nemotron 3 Super, arXiv:2604.12374).
        balance: weight of the balance loss.
        bias_rate: step of the routers' biases; 0 leaves them alone.
        recompute: whether blocks are computed again in the backward pass, for memory.
        divide: what processes of Lightning's `ModelParallelStrategy` divide over "data_parallel":
            "weights" (FSDP2), "experts" and all other weights, or "tokens" of each row and weights
            (context parallel). Over "tensor_parallel" heads and channels are divided. Other
            strategies do not look at it.

    Raises:
        TypeError: what should be a number is none.
        ValueError: divide is none of these, or a number is negative or NaN, or a share above 1.
    """

    def __init__(
        self,
        config: HybridConfig,
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        warmup: int = 50,
        decay: float = 0.2,
        floor: float = 0.01,
        ahead: float = 0.3,
        balance: float = 1e-4,
        bias_rate: float = 1e-3,
        recompute: bool = False,
        divide: str = "weights",
    ) -> None:
        super().__init__()
        if divide not in DIVIDED:
            raise ValueError(f"divide: expected one of {', '.join(DIVIDED)}, got {divide!r}")
        # As Python's own numbers: checkpoints with NumPy's are not read.
        lr, weight_decay = check_number("lr", lr), check_number("weight_decay", weight_decay)
        warmup = check_count("warmup", warmup, "steps", 0)
        decay, floor = check_number("decay", decay, 1), check_number("floor", floor, 1)
        ahead, balance = check_number("ahead", ahead), check_number("balance", balance)
        bias_rate, recompute = check_number("bias_rate", bias_rate), bool(recompute)
        config = HybridConfig(**config) if isinstance(config, dict) else config
        self.save_hyperparameters(ignore="config")
        self.save_hyperparameters({"config": asdict(config)})
        self.model = HybridLM(config)
        self.model.recompute(recompute)
        self._last_step: float | None = None
        self._validated = torch.zeros(2, dtype=torch.float64)  # sum of losses, and their number

    def configure_model(self) -> None:
        """Divide the model over the mesh of `ModelParallelStrategy`, if that is the strategy.

        Raises:
            ValueError: the model cannot be divided so.
        """
        if self.device_mesh is not None and not is_spread(self.model):
            divide(self.model, self.device_mesh, self.hparams["divide"])

    def data_ranks(self) -> tuple[int, int]:
        """Which process this is, of how many that have rows of their own."""
        if self.device_mesh is None:
            return _ranks()
        if self.hparams["divide"] == "tokens":
            return 0, 1
        mesh = self.device_mesh["data_parallel"]
        return mesh.get_local_rank(), mesh.size()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """This process's tokens of each row."""
        return Batch(*(piece(rows, self._context) for rows in batch))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The parts of the loss, unweighted: "next", "ahead" and "balance", where there are any.

        Where processes divide the tokens of a row, the batch is this one's, and the mean over
        processes is what counts.
        """
        mesh = self._context
        targets, seq_idx = (whole_row(t, mesh) for t in (batch.targets, batch.seq_idx))
        with collect_routings(self.model) as routings:
            hidden = self.model.hidden(batch.tokens, batch.seq_idx)
            output = self.model.lm_head.weight
            found = {"next": self._loss(hidden, output, batch.targets)}
            if self.hparams["ahead"] and self.model.mtp is not None:
                deeper = self.model.ahead(hidden, batch.tokens, batch.seq_idx)
                parts = [
                    self._loss(h, output, piece(targets_ahead(targets, seq_idx, k), mesh))
                    for k, h in enumerate(deeper, 1)
                ]
                found["ahead"] = torch.stack(parts).mean()
        if self.hparams["balance"] and routings:
            shape = batch.tokens.shape
            top_k = self.model.config.top_k
            parts = [
                sequence_balance_loss(whole_row(r.scores.unflatten(0, shape), mesh), top_k, seq_idx)
                for r in routings
            ]
            found["balance"] = torch.stack(parts).mean()
        return found

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch.

        Raises:
            FloatingPointError: it is NaN or infinite. Of several processes all raise it, once they
                have added up their gradients.
        """
        parts = self.losses(batch)
        weights = {"next": 1.0, "ahead": self.hparams["ahead"], "balance": self.hparams["balance"]}
        loss = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        if _ranks()[1] == 1 and not bool(loss.isfinite()):
            raise FloatingPointError(self._not_finite("loss", loss))
        self.log_dict({f"train/{name}": part.detach() for name, part in parts.items()})
        self.log("train/loss", loss.detach(), prog_bar=True)
        self._log_speed(batch.tokens.numel())
        return loss

    def on_validation_epoch_start(self) -> None:
        """Nothing is validated yet."""
        self._validated = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Cross-entropy of the next token."""
        hidden = self.model.hidden(batch.tokens, batch.seq_idx).flatten(0, 1)
        loss = next_token_loss(hidden, self.model.lm_head.weight, batch.targets.flatten())
        count = (batch.targets != IGNORED).sum()
        self._validated += torch.stack([loss.double() * count, count])

    def on_validation_epoch_end(self) -> None:
        """Its mean over all targets that count, of all processes."""
        if _ranks()[1] > 1:
            dist.all_reduce(self._validated)
        total, count = self._validated
        self.log("val/loss", total / count.clamp(min=1), prog_bar=True, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep how many processes divide heads: rows of Mamba-2's weights are sorted by them."""
        checkpoint["tensor_parallel"] = self._tensor_parallel

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the checkpoint of another number of processes that divide heads.

        Raises:
            ValueError: it is another number.
        """
        kept = checkpoint.get("tensor_parallel", 1)
        if kept != self._tensor_parallel:
            raise ValueError(
                f"tensor_parallel_size: the checkpoint is of {kept}, this run of "
                f"{self._tensor_parallel}; take {kept}, or start from model.save_pretrained(folder)"
            )

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Look at the gradient before any weight moves.

        Raises:
            FloatingPointError: it is NaN or infinite: weights and checkpoints stay as they are.
        """
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            return  # which looks by itself, and leaves such steps out
        norm = total_norm(self.model)
        if not bool(norm.isfinite()):
            raise FloatingPointError(self._not_finite("gradient", norm))

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """A step, after which routers move towards even loads."""
        super().optimizer_step(*args, **options)
        loads = list(update_biases(self.model, self.hparams["bias_rate"]).values())
        if not loads:
            return
        self.log("train/max_vio", torch.stack([load.max_vio for load in loads]).mean())
        self.log("train/load_entropy", torch.stack([load.entropy for load in loads]).mean())

    def configure_optimizers(self) -> Any:
        """AdamW with the schedule of `warmup_stable_decay`."""
        h = self.hparams
        named = dict(self.named_parameters())
        decay = {
            name: p.ndim > 1 and not name.endswith("conv1d.weight") for name, p in named.items()
        }
        groups = [
            {"params": [named[name] for name in named if decay[name]]},
            {"params": [named[name] for name in named if not decay[name]], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, h["lr"], (0.9, 0.95), weight_decay=h["weight_decay"])
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps):
            raise ValueError("max_steps: expected a number of steps or of epochs, for the schedule")
        factor = partial(
            warmup_stable_decay,
            steps=int(steps),
            warmup=h["warmup"],
            decay=h["decay"],
            floor=h["floor"],
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _not_finite(self, what: str, found: Tensor) -> str:
        return (
            f"{what}: {float(found)} at step {self.global_step}; go on from the last checkpoint "
            "with a lower lr, or gradient clipping"
        )

    def _log_speed(self, tokens: int) -> None:
        """Tokens a second of this process, from one batch to the next; validation counts, too."""
        now, before = time.perf_counter(), self._last_step
        self._last_step = now
        if before is not None:
            self.log("train/tokens_per_s", tokens / (now - before))

    @property
    def _context(self) -> DeviceMesh | None:
        """Of the processes that divide the tokens of a row; None where rows are whole."""
        if self.device_mesh is None or self.hparams["divide"] != "tokens":
            return None
        return self.device_mesh["data_parallel"]

    @property
    def _tensor_parallel(self) -> int:
        return self.device_mesh["tensor_parallel"].size() if self.device_mesh is not None else 1

    def _loss(self, hidden: Tensor, output: Tensor, targets: Tensor) -> Tensor:
        loss = next_token_loss(hidden.flatten(0, 1), output, targets.flatten())
        return token_mean(loss, targets, self._context)


class TextData(ResumableDataModule):
    """Texts as packed tokens, made once and kept.

    Args:
        sources: files, folders or "stdlib", the Python standard library's source; see
            `nemotron_blocks.text.documents`.
        tokenizer: "bytes", "bpe", which is learned from the training texts, or a tokenizer.json.
        vocab_size: of "bpe"; the others know theirs, see `vocab_size_of`.
        length: tokens of a sequence.
        batch: sequences of a process.
        validation: share of the files that is left out for validation.
        cache: folder of files of tokens.
        seed: of the order.

    Raises:
        TypeError: what should be a number is none.
        FileNotFoundError: a source is missing, or has no texts.
        ValueError: a number is out of range; no file is left for training or for validation.
    """

    def __init__(
        self,
        sources: Sequence[str] = (text.STANDARD_LIBRARY,),
        tokenizer: str = "bytes",
        vocab_size: int = 4096,
        length: int = 512,
        batch: int = 8,
        validation: float = 0.05,
        cache: str = ".cache/tokens",
        seed: int = 0,
    ) -> None:
        super().__init__()
        vocab_size = check_count("vocab_size", vocab_size, "tokens")
        length, batch = check_count("length", length, "tokens"), check_count("batch", batch, "rows")
        validation = check_number("validation", validation, 1)
        seed = check_count("seed", seed, "as a whole number", 0)
        self.save_hyperparameters()
        self.files = text.split(text.documents(sources), validation)
        if not self.files[0] or not self.files[1]:
            raise ValueError(
                f"validation: {len(self.files[0])} files are for training and "
                f"{len(self.files[1])} for validation; take more files, or another share"
            )

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, learned first if need be."""
        name, cache = self.hparams["tokenizer"], Path(self.hparams["cache"])
        if name == "bytes":
            return ByteTokenizer()
        if name != "bpe":
            return BPETokenizer.load(name)
        size = self.hparams["vocab_size"]
        path = cache / f"bpe-{size}-{text.key(self.files[0])}.json"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            BPETokenizer.train(map(text.read, self.files[0]), size).save(path)
        return BPETokenizer.load(path)

    def prepare_data(self) -> None:
        """Write the files of tokens that are missing, with a progress bar."""
        tokenizer = self.tokenizer()
        for path, files in zip(self._paths(tokenizer), self.files):
            if not path.exists():
                write_tokens(path, _tokens(tokenizer, files), tokenizer.vocab_size)

    def setup(self, stage: str) -> None:
        """Open the files of tokens.

        Raises:
            ValueError: the model's vocabulary is smaller than the tokenizer's.
        """
        h, tokenizer, ranks = self.hparams, self.tokenizer(), _ranks()
        module = self.trainer.lightning_module if self.trainer else None
        if isinstance(module, HybridModule):
            ranks = module.data_ranks()
            size = module.model.config.vocab_size
            if size < tokenizer.vocab_size:
                raise ValueError(
                    f"vocab_size: the model has {size}, the tokenizer {tokenizer.vocab_size}; "
                    "HybridConfig(vocab_size=...) has to be at least that"
                )
        make: Callable[..., TokenBatches] = partial(
            TokenBatches, length=h["length"], size=h["batch"], rank=ranks[0], processes=ranks[1]
        )
        training, validation = map(TokenFile, self._paths(tokenizer))
        self.training = make(training, seed=h["seed"])
        self.validation = make(validation, shuffle=False)

    def train_dataloader(self) -> ResumableLoader[Batch]:
        """One batch after another."""
        return self.resumable(self.training, _Epochs(self.training))

    def val_dataloader(self) -> TokenBatches:
        """All windows of the validation texts."""
        # Of a DataLoader Lightning would give each process a share of the share that it has here.
        return self.validation

    def _paths(self, tokenizer: Tokenizer) -> list[Path]:
        cache = Path(self.hparams["cache"])
        return [cache / f"{tokenizer.key}-{text.key(files)}.npy" for files in self.files]


def vocab_size_of(tokenizer: str, vocab_size: int) -> int:
    """The vocabulary of a model for these arguments of `TextData`."""
    if tokenizer == "bytes":
        return ByteTokenizer.vocab_size
    return vocab_size if tokenizer == "bpe" else BPETokenizer.load(tokenizer).vocab_size


def _ranks() -> tuple[int, int]:
    """Which process this is, of how many."""
    together = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if together else (0, 1)


class _Epochs:
    """All batches, and a way for Lightning to say which epoch it is."""

    def __init__(self, batches: TokenBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.batches)))

    def set_epoch(self, epoch: int) -> None:
        self.batches.epoch = epoch


def _tokens(tokenizer: Tokenizer, files: Sequence[Path]) -> Iterator[list[int]]:
    from tqdm import tqdm

    end = tokenizer.special("<end>")
    for file in tqdm(files, desc="tokens", unit="file", leave=False):
        yield [*tokenizer.encode(text.read(file)), end]
