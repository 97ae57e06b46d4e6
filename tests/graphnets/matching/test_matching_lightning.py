import json
import math
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from small_logs import drawn_logs, write_xdt

from graphnets.matching.candidates import Candidates, hard_pairs
from graphnets.matching.evaluation import evaluate
from graphnets.matching.lightning import (
    LogsDataModule,
    PairMatcher,
    PairsData,
    load_matcher,
    train,
)
from graphnets.matching.neighbours import nearest
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.vectors import token_vectors
from graphnets.matching.vocabulary import vocabulary
from graphnets.matching.xdt import load_xdt

SMALL: dict[str, Any] = {
    "episodes": 3,
    "users": 6,
    "per_user": 3,
    "min_visits": 10,
    "days": (4.0, 10.0),
}


@pytest.fixture(scope="module")
def data_path(tmp_path_factory):
    return str(write_xdt(tmp_path_factory.mktemp("logs") / "xdt.npz"))


def trainer(folder, epochs, *callbacks):
    return L.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=folder, save_last=True), *callbacks],
    )


def fitted(path, folder, epochs, checkpoint=None, module=None, **options):
    L.seed_everything(0, verbose=False)
    module = module or PairMatcher(width=0, dropout=0.0)
    settings: dict[str, Any] = SMALL | options
    data = LogsDataModule(path, fold=0, validation=1, **settings)
    trainer(folder, epochs).fit(module, data, ckpt_path=checkpoint)
    return module


def test_training_makes_the_loss_fall(data_path, tmp_path):
    L.seed_everything(0, verbose=False)
    module = PairMatcher(width=0, lr=1e-2)
    longer: dict[str, Any] = SMALL | {"episodes": 25}
    data = LogsDataModule(data_path, fold=0, **longer)
    data.setup("fit")
    episode = data.episodes[0]

    def loss():
        with torch.no_grad():
            scores = module.matcher.score(module.matcher(episode.logs, data.known), episode.pairs)
        return float(torch.nn.functional.binary_cross_entropy_with_logits(scores, episode.labels))

    before = loss()
    train(module, data)
    assert loss() < 0.9 * before


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(data_path, tmp_path):
    whole = fitted(data_path, tmp_path / "whole", 4)
    # The schedule spans the whole run, so that it is stopped, not shorter.
    L.seed_everything(0, verbose=False)
    module = PairMatcher(width=0, dropout=0.0)

    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    first = trainer(tmp_path / "part", 4, Stop())
    with pytest.raises(SystemExit):
        first.fit(module, LogsDataModule(data_path, fold=0, validation=1, **SMALL))
    again = fitted(data_path, tmp_path / "part", 4, tmp_path / "part" / "last.ckpt")
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, msg=name)


def test_a_checkpoint_knows_enough_for_other_peoples_logs(data_path, tmp_path):
    fitted(data_path, tmp_path, 2)
    module = load_matcher(tmp_path / "last.ckpt")
    assert module.frequencies is not None
    assert set(module.decisions) == {"A", "B", "B1"}
    others = load_xdt(write_xdt(tmp_path / "others.npz", n_users=8, seed=3))
    found = evaluate(module, others, min_visits=10)
    json.dumps(found)  # plain numbers
    for task in ("A", "B", "B1"):
        result = found[task]
        assert 0.5 < result["average_precision"] <= 1  # far above chance, about 0.1
        assert 0 < result["f1"] <= result["f1_optimistic"] <= 1
        assert result["candidates"]["candidate_recall"] > 0.5
        assert result["users"]["true_users"] == 8
        assert result["pairs_per_second"] > 0


@pytest.mark.parametrize("network", ["hgnn", "tgce"])
def test_vectors_of_tokens_go_with_the_checkpoint(data_path, tmp_path, network):
    heads = ("pooled", "cross")
    module = PairMatcher(network, vectors=4, width=8, heads=heads)
    trained = fitted(data_path, tmp_path, 1, module=module, vectors=4)
    loaded = load_matcher(tmp_path / "last.ckpt")
    assert trained.known is not None
    found = loaded.token_vectors(trained.known)
    assert found is not None
    assert trained.vectors is not None
    assert torch.equal(found, trained.vectors)
    others = load_xdt(write_xdt(tmp_path / "others.npz", n_users=8, seed=3))
    result = evaluate(loaded, others, min_visits=10)
    assert math.isfinite(result["B"]["average_precision"])


def test_training_on_candidates():
    logs = drawn_logs()
    known = vocabulary(logs)
    near = Candidates.from_neighbours({"TF-IDF": nearest(TfIdf().fit(logs).transform(logs), 8)})
    pairs, labels = hard_pairs(near, logs.users)
    assert int((~labels).sum()) == 3 * int(labels.sum())
    module = PairMatcher("tgce", levels=2, vectors=4)
    data = PairsData(logs, pairs, labels, known, token_vectors(logs, known, 4), batch=16)
    train(module, data, epochs=2)
    scores = module.scores(logs, all_pairs(len(logs)))
    assert bool(scores.isfinite().all())
    assert bool(same_user(logs.users, all_pairs(len(logs))).any())


def test_checkpoints_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint: no file"):
        load_matcher(tmp_path / "absent.ckpt")
    (tmp_path / "half.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ValueError, match="cut short, damaged"):
        load_matcher(tmp_path / "half.ckpt")


def test_wrong_arguments_are_named(data_path):
    with pytest.raises(ValueError, match="levels: prefixes of these logs have 4"):
        train(PairMatcher(levels=3), LogsDataModule(data_path, fold=0, **SMALL))
