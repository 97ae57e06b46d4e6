"""Training: every family learns, all weights move, and a run that was stopped goes on exactly."""

from dataclasses import replace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lm_training import FAMILIES, Kill, Killed, Losses, module, trainer, write_texts

from nemotron_blocks.lightning import HybridModule, TextData
from nemotron_blocks.loss import IGNORED
from nemotron_blocks.router import Router


@pytest.fixture(scope="module")
def data_options(tmp_path_factory):
    options = {"length": 48, "batch": 4, "validation": 0.2}
    return write_texts(tmp_path_factory.mktemp("data"), 60, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_learns_and_every_weight_moves(family, data_options, tmp_path):
    learner, losses = module(family), Losses()
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    trainer(tmp_path, 25, losses).fit(learner, TextData(**data_options))
    assert losses.values[-1] < 0.6 * losses.values[0]
    for name, weight in learner.named_parameters():
        assert not torch.equal(weight, before[name]), name
    for router in (m for m in learner.modules() if isinstance(m, Router)):
        bias = router.e_score_correction_bias
        assert 0 < float(bias.abs().max()) <= 25e-3 + 1e-6


def test_losses_are_those_of_the_logits(data_options):
    data = TextData(**data_options)
    data.prepare_data()
    data.setup("fit")
    batch = data.training[0]
    learner = module("latent").eval()
    parts = learner.losses(batch)
    with torch.no_grad():
        logits = learner.model(batch.tokens, batch.seq_idx)
        expected = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED
        )
        torch.testing.assert_close(parts["next"].detach(), expected)
        hidden = learner.model.hidden(batch.tokens, batch.seq_idx)
        deeper = learner.model.ahead(hidden, batch.tokens, batch.seq_idx)
        wanted = []
        for k, h in enumerate(deeper, 1):
            rows = []
            odds = learner.model.lm_head(h).log_softmax(-1)
            for b in range(4):
                for i in range(48 - k):
                    same = batch.seq_idx[b, i] == batch.seq_idx[b, i + k]
                    if same and batch.targets[b, i + k] != IGNORED:
                        rows.append(-odds[b, i, batch.targets[b, i + k]])
            wanted.append(torch.stack(rows).mean())
    torch.testing.assert_close(parts["ahead"].detach(), torch.stack(wanted).mean())
    assert 0.9 < float(parts["balance"]) < 2  # 1 where loads are even


@pytest.mark.parametrize("stop", [7, 20])
def test_a_run_that_was_killed_goes_on_with_the_same_losses(stop, data_options, tmp_path):
    def keep():
        return ModelCheckpoint(dirpath=tmp_path, save_last=True, every_n_train_steps=3)

    whole, part = Losses(), Losses()
    trainer(tmp_path, 26, whole).fit(module("experts"), TextData(**data_options))
    first = trainer(tmp_path, 26, part, keep(), Kill(stop), enable_checkpointing=True)
    with pytest.raises(Killed):
        first.fit(module("experts"), TextData(**data_options))
    L.seed_everything(99, verbose=False)
    again = Losses()
    trainer(tmp_path, 26, again).fit(
        module("experts"), TextData(**data_options), ckpt_path=tmp_path / "last.ckpt"
    )
    kept = stop // 3 * 3
    assert whole.values[:kept] + again.values == pytest.approx(whole.values, rel=1e-4)
    assert len(again.values) == 26 - kept


def test_a_loss_that_is_not_finite_stops_training(data_options, tmp_path):
    learner = module("dense")
    with torch.no_grad():
        learner.model.embeddings.weight[ord("d")] = float("nan")
    before = {name: p.detach().clone() for name, p in learner.named_parameters()}
    with pytest.raises(FloatingPointError, match="loss: nan at step 0; go on from the last"):
        trainer(tmp_path, 5).fit(learner, TextData(**data_options))
    for name, weight in learner.named_parameters():
        torch.testing.assert_close(weight, before[name], equal_nan=True)


class Counter:
    """Passes that are differentiated."""

    training = 0

    def count(self, *_: object) -> None:
        self.training += torch.is_grad_enabled()


class SpoilGradient(L.Callback):
    """A gradient that overflows at a step, though the loss does not."""

    def __init__(self, step):
        self.step = step

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            pl_module.get_parameter("model.norm_f.weight").grad[3] = float("inf")


def test_a_gradient_that_is_not_finite_leaves_the_last_good_checkpoint(data_options, tmp_path):
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True, every_n_train_steps=1)
    made = trainer(tmp_path, 9, keep, SpoilGradient(3), enable_checkpointing=True)
    with pytest.raises(FloatingPointError, match="gradient: inf at step 3; go on from the last"):
        made.fit(module("dense"), TextData(**data_options))
    kept = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 3
    assert all(bool(weight.isfinite().all()) for weight in kept["state_dict"].values())
    goes_on = trainer(tmp_path, 5)
    goes_on.fit(
        module("dense"), TextData(**data_options), ckpt_path=tmp_path / "kept" / "last.ckpt"
    )
    assert goes_on.global_step == 5


def test_matrices_decay_and_nothing_else_does(data_options, tmp_path):
    learner = module("latent", weight_decay=0.25)
    made = trainer(tmp_path, 1)
    made.fit(learner, TextData(**data_options))
    names = {p: name.rpartition("layers.")[2] for name, p in learner.named_parameters()}
    decays, stays = (
        {names[p] for p in group["params"]} for group in made.optimizers[0].param_groups
    )
    assert [group["weight_decay"] for group in made.optimizers[0].param_groups] == [0.25, 0.0]
    assert {"0.mixer.in_proj.weight", "1.mixer.experts.up", "1.mixer.gate.weight"} <= decays
    own = {f"0.mixer.{name}" for name in ("A_log", "D", "dt_bias", "conv1d.weight", "conv1d.bias")}
    assert own | {"0.norm.weight", "0.mixer.norm.weight"} <= stays


def test_a_model_of_too_small_a_vocabulary_is_refused_at_once(data_options, tmp_path):
    config = replace(module("dense").model.config, vocab_size=200)
    with pytest.raises(ValueError, match="vocab_size: the model has 200, the tokenizer 259"):
        trainer(tmp_path, 1).fit(HybridModule(config), TextData(**data_options))


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"decay": 1.5}, "decay: expected 0 to 1, got 1.5"),
        ({"warmup": -3}, "warmup: expected at least 0 steps, got -3"),
        ({"bias_rate": -1.0}, "bias_rate: expected at least 0, got -1.0"),
        ({"lr": float("nan")}, "lr: expected at least 0, got nan"),
    ],
)
def test_numbers_of_a_training_are_checked(option, text):
    with pytest.raises(ValueError, match=text):
        module("dense", **option)


def test_recomputing_changes_no_loss(data_options, tmp_path):
    losses = [Losses(), Losses()]
    for recompute, seen in zip((False, True), losses):
        learner = module("latent", recompute=recompute)
        inside = Counter()  # passes through what may be recomputed
        for name in ("layers.0.mixer", "mtp.layers.0.mixer"):
            learner.model.get_submodule(name).register_forward_pre_hook(inside.count)
        trainer(tmp_path, 6, seen).fit(learner, TextData(**data_options))
        assert inside.training == 6 * (1 + learner.model.config.mtp_depth) * (1 + recompute)
    assert losses[0].values == pytest.approx(losses[1].values, rel=1e-4)


def test_checkpoints_bring_their_config(data_options, tmp_path):
    learner = module("latent")
    fitted = trainer(tmp_path, 2, enable_checkpointing=True)
    fitted.fit(learner, TextData(**data_options))
    fitted.save_checkpoint(tmp_path / "kept.ckpt")
    found = HybridModule.load_from_checkpoint(tmp_path / "kept.ckpt", weights_only=True)
    assert found.model.config == learner.model.config
    tokens = torch.randint(200, (1, 9))
    with torch.no_grad():
        assert torch.equal(found.model(tokens), learner.model(tokens))


def test_half_precision_trains(data_options, tmp_path):
    losses = Losses()
    trainer(tmp_path, 25, losses, precision="bf16-mixed").fit(
        module("latent"), TextData(**data_options)
    )
    assert losses.values[-1] < 0.7 * losses.values[0]


def test_what_is_divided_is_checked():
    with pytest.raises(ValueError, match="divide: expected one of weights, experts, tokens, got"):
        module("dense", divide="heads")


def test_a_checkpoint_of_another_number_of_processes_is_refused():
    with pytest.raises(ValueError, match="tensor_parallel_size: the checkpoint is of 2, this run"):
        module("dense").on_load_checkpoint({"tensor_parallel": 2})


def test_too_few_files_are_named(data_options):
    with pytest.raises(ValueError, match="validation: 60 files are for training and 0 for valid"):
        TextData(**data_options | {"validation": 0.0})


def test_numbers_of_numpy_come_back_from_a_checkpoint(data_options, tmp_path):
    options = {"lr": np.float64(1e-3), "warmup": np.int64(5), "decay": np.float32(0.25)}
    texts = TextData(**data_options | {"length": np.int64(48), "seed": np.int32(1)})
    made = trainer(tmp_path, 1, enable_checkpointing=True)
    learner = module("dense", **options, recompute=np.bool_(False))
    made.fit(learner, texts)
    made.save_checkpoint(tmp_path / "kept.ckpt")
    found = HybridModule.load_from_checkpoint(tmp_path / "kept.ckpt", weights_only=True)
    assert dict(found.hparams) == dict(learner.hparams)
    assert (found.hparams["lr"], found.hparams["warmup"], found.hparams["decay"]) == (1e-3, 5, 0.25)


def test_the_validation_loss_is_that_of_all_tokens(data_options, tmp_path):
    """However many windows a batch has, and however many targets count in it."""
    learner = module("dense")
    losses = []
    for size in (1, 4, 64):
        texts = TextData(**data_options | {"batch": size, "length": 20})
        (found,) = trainer(tmp_path, 1).validate(learner, texts, verbose=False)
        losses.append(found["val/loss"])
    assert texts.validation.windows % 4
    assert texts.validation.windows % 64
    total = count = 0.0
    with torch.no_grad():
        for k in range(texts.validation.windows):
            tokens, targets, seq_idx = map(torch.from_numpy, texts.validation._window(k))
            logits = learner.model(tokens[None], seq_idx[None])[0]
            total += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
            count += int((targets != IGNORED).sum())
    assert losses == pytest.approx(3 * [total / count], rel=1e-5)
