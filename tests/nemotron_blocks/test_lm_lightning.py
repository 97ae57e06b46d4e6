"""Training: every family learns, all weights move, and a run that was stopped goes on exactly."""

import lightning as L
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


def test_recomputing_changes_no_loss(data_options, tmp_path):
    losses = [Losses(), Losses()]
    for recompute, seen in zip((False, True), losses):
        learner = module("latent", recompute=recompute)
        trainer(tmp_path, 6, seen).fit(learner, TextData(**data_options))
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
