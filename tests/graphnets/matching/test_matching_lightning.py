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
from graphnets.matching.features import PairFeatures
from graphnets.matching.lightning import PairMatcher, load_matcher, train
from graphnets.matching.logs import week_slices
from graphnets.matching.neighbours import nearest
from graphnets.matching.pairs import all_pairs, same_user
from graphnets.matching.tasks import task_pairs, task_vocabulary
from graphnets.matching.tfidf import TfIdf
from graphnets.matching.training.episodes import WindowEpisodes
from graphnets.matching.training.lightning import CandidatesData, LogsDataModule, PairsData
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


class Losses(L.Callback):
    """The loss of each step. Weights would not do: where a gradient is nothing but rounding, which
    is not always the same, Adam's steps are as large as elsewhere."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_):
        self.values.append(float(outputs["loss"]))


def fitted(path, folder, epochs, checkpoint=None, module=None, callbacks=(), **options):
    L.seed_everything(0, verbose=False)
    module = module or PairMatcher(width=0, dropout=0.0)
    settings: dict[str, Any] = SMALL | options
    data = LogsDataModule(path, fold=0, validation=1, **settings)
    trainer(folder, epochs, *callbacks).fit(module, data, ckpt_path=checkpoint)
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


def test_pairs_of_different_kinds_count_again_in_a_mean_of_their_own(data_path):
    torch.manual_seed(0)
    data = LogsDataModule(data_path, fold=0, negatives=2, **SMALL)
    data.setup("fit")
    episode, share = data.episodes[0], 0.7
    assert len(episode.weights.unique()) == 2  # false pairs that are left stand for others
    module = PairMatcher(width=0, cross_kind=share).eval()
    module.known = data.known
    with torch.no_grad():
        scores = module.matcher.score(module.matcher(episode.logs, data.known), episode.pairs)
        found = module.training_step(episode, 0)
    odds = torch.where(episode.labels > 0, scores, -scores)
    losses = torch.log1p(torch.exp(-odds))
    kinds = episode.logs.kinds[episode.pairs]
    cross = kinds[:, 0] != kinds[:, 1]
    means = [
        (losses[of] * episode.weights[of]).sum() / episode.weights[of].sum()
        for of in (torch.ones_like(cross), cross)
    ]
    assert float((means[0] - means[1]).abs()) > 1e-3
    torch.testing.assert_close(found, means[0] + share * means[1])


def test_a_run_that_was_stopped_goes_on_with_the_same_losses(data_path, tmp_path):
    whole, part = Losses(), Losses()
    fitted(data_path, tmp_path / "whole", 4, callbacks=[whole])
    # The schedule spans the whole run, so that it is stopped, not shorter.
    L.seed_everything(0, verbose=False)
    module = PairMatcher(width=0, dropout=0.0)

    class Stop(L.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 2:
                raise KeyboardInterrupt

    first = trainer(tmp_path / "part", 4, Stop(), part)
    with pytest.raises(SystemExit):
        first.fit(module, LogsDataModule(data_path, fold=0, validation=1, **SMALL))
    fitted(data_path, tmp_path / "part", 4, tmp_path / "part" / "last.ckpt", callbacks=[part])
    assert part.values == pytest.approx(whole.values, rel=1e-3)
    assert len(set(whole.values)) == len(whole.values) == 12


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
        # Task A was decided by nine pairs of three people.
        assert (0 if task == "A" else 0.5) <= result["f1"] <= result["f1_optimistic"] <= 1
        assert result["candidates"]["candidate_recall"] > 0.5
        assert result["users"]["true_users"] == 8
        left = result["stages"]
        assert left["candidates"] == result["candidates"]["candidate_recall"]
        assert left["called true"] == result["candidates"]["recall"]
        assert result["pairs_per_second"] > 0


def test_a_linear_matcher_has_its_say_in_the_tasks_wherever_the_network_is(data_path, tmp_path):
    module = PairMatcher(width=0, rounds=2, linear=True)
    fitted(data_path, tmp_path, 1, module=module)
    loaded = load_matcher(tmp_path / "last.ckpt")
    logs = load_xdt(write_xdt(tmp_path / "others.npz", n_users=8, seed=3))
    known, pairs = vocabulary(logs, loaded.frequencies), task_pairs(logs, "A")
    own = loaded.scores(logs, pairs, known)
    expected = loaded.linear["A"](PairFeatures(logs)(pairs)).float()
    assert float(expected.std()) > 0.1
    assert torch.equal(loaded.linear_scores(logs, pairs, "A"), expected)
    assert torch.equal(loaded.scores(logs, pairs, known, "A"), own + expected)
    there = loaded.to("meta")  # a device without numbers: what goes there is lost
    assert there.device.type == "meta"
    assert torch.equal(there.linear_scores(logs, pairs, "A"), expected)


@pytest.mark.parametrize("network", ["hgnn", "tgce"])
def test_vectors_of_tokens_go_with_the_checkpoint(data_path, tmp_path, network):
    sizes = {"width": 8, "heads": ("pooled", "cross")} if network == "hgnn" else {}
    module = PairMatcher(network, vectors=4, **sizes)
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


@pytest.fixture(scope="module")
def near():
    logs = drawn_logs()
    vectors = TfIdf().fit(logs).transform(logs)
    return logs, Candidates.from_neighbours({"TF-IDF": nearest(vectors, 8)})


def test_training_on_given_pairs(near):
    logs, candidates = near
    known = vocabulary(logs)
    pairs, labels = hard_pairs(candidates, logs.users)
    module = PairMatcher("tgce", levels=2, vectors=4)
    data = PairsData(logs, pairs, labels, known, token_vectors(logs, known, 4), batch=16)
    train(module, data, epochs=2)
    scores = module.scores(logs, all_pairs(len(logs)))
    assert bool(scores.isfinite().all())
    assert bool(same_user(logs.users, all_pairs(len(logs))).any())


def candidates_data(near):
    logs, candidates = near
    return CandidatesData(logs, candidates, vocabulary(logs), batch=16)


def test_false_pairs_are_those_that_the_matcher_confuses(near):
    logs, candidates = near
    data = candidates_data(near)
    first = data.episodes.pairs
    false = int((~data.episodes.labels).sum())
    odd = candidates.pairs.sum(1) % 2 == 1
    assert int((odd & ~same_user(logs.users, candidates.pairs)).sum()) > false

    def score(some, pairs):
        assert some is logs
        return (pairs.sum(1) % 2).float()

    data.begin_epoch(0, score)
    assert data.episodes.pairs is first  # a matcher that has learned nothing has no say
    data.begin_epoch(1, score)
    chosen, labels = data.episodes.pairs, data.episodes.labels
    assert len(chosen) == len(first)
    assert torch.equal(labels, same_user(logs.users, chosen))
    share = float((chosen[~labels].sum(1) % 2).double().mean())
    assert share > 0.65  # half are odd because they score high, and half of the others
    data.begin_epoch(1, lambda logs, pairs: torch.zeros(len(pairs)))
    assert data.episodes.pairs is chosen  # drawn once an epoch


def test_a_training_does_not_depend_on_one_before_it(near):
    def losses(data):
        L.seed_everything(0, verbose=False)
        module, found = PairMatcher(levels=2, width=0, dropout=0.0), Losses()
        L.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[found],
        ).fit(module, data)
        return found.values

    data = candidates_data(near)
    first = losses(data)
    assert losses(data) == pytest.approx(first, rel=1e-3)


def test_a_run_that_was_stopped_within_an_epoch_goes_on_with_the_same_losses(near, tmp_path):
    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == trainer.num_training_batches + 2:
                trainer.save_checkpoint(tmp_path / "part.ckpt")

    def run(checkpoint=None, *callbacks):
        L.seed_everything(0, verbose=False)
        module, data = PairMatcher(levels=2, width=4, dropout=0.3), candidates_data(near)
        losses = Losses()
        trainer(tmp_path, 3, losses, *callbacks).fit(module, data, ckpt_path=checkpoint)
        return losses.values, data.episodes

    whole, drawn = run(None, Stop())
    left, same = run(tmp_path / "part.ckpt")
    assert torch.equal(same.pairs, drawn.pairs)
    assert left == pytest.approx(whole[len(same) + 2 :], rel=1e-3)
    assert len(left) == 2 * len(same) - 2


def test_checkpoints_that_are_not_whole_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint: no file"):
        load_matcher(tmp_path / "absent.ckpt")
    (tmp_path / "half.ckpt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(ValueError, match="cut short, damaged"):
        load_matcher(tmp_path / "half.ckpt")


def test_checkpoints_of_something_else_are_refused(tmp_path):
    layer = torch.nn.Linear(2, 2)
    found = {"state_dict": layer.state_dict(), "pytorch-lightning_version": L.__version__}
    for name, content in {"other": found, "tensor": torch.ones(3), "module": layer}.items():
        torch.save(content, tmp_path / f"{name}.ckpt")
        with pytest.raises(ValueError, match=rf"{name}\.ckpt is none of a PairMatcher"):
            load_matcher(tmp_path / f"{name}.ckpt")


def test_what_tgce_does_not_heed_is_named(recwarn):
    PairMatcher("tgce", levels=2, vectors=4, heads=["shared"])
    assert not [w for w in recwarn if "TGCE" in str(w.message)]
    with pytest.warns(UserWarning, match="TGCE does not heed width=8, rounds=2"):
        PairMatcher("tgce", levels=2, vectors=4, width=8, rounds=2)


def test_wrong_arguments_are_named(data_path):
    with pytest.raises(ValueError, match="levels: prefixes of these logs have 4"):
        train(PairMatcher(levels=3), LogsDataModule(data_path, fold=0, **SMALL))


def test_no_user_is_in_two_roles(data_path):
    data = LogsDataModule(data_path, fold=0, validation=1, **SMALL)
    data.setup("fit")
    logs = load_xdt(data_path)
    training, validation = (set(some.users.tolist()) for some in (data.training, data.validation))
    test = set(logs.users.tolist()) - training - validation
    assert not training & validation
    assert len(test) == len(validation) == 3
    held_out = logs.select(torch.isin(logs.users, torch.tensor(sorted(test))).nonzero()[:, 0])
    alone = vocabulary(week_slices(held_out, 10)).frequencies()
    own = alone.ids[(alone.kinds == 2) & (alone.devices > 0)]
    known = data.known.frequencies()
    seen = known.ids[(known.kinds == 2) & (known.devices > 0)]
    assert not bool(torch.isin(own, seen).all())  # pages of theirs count for nothing in training
    assert data.known.n_devices == len(week_slices(data.training, 10))
    everything = LogsDataModule(data_path, fold=0, validation=1, transductive=True, **SMALL)
    everything.setup("fit")
    assert everything.known.n_devices == len(week_slices(logs, 10))


@pytest.mark.parametrize("transductive", [False, True])
def test_each_task_is_validated_with_a_vocabulary_of_its_own(data_path, monkeypatch, transductive):
    seen = {}

    def recorded(self, logs, pairs, known=None, task=None):
        seen[task] = known
        return torch.rand(len(pairs))

    options: dict[str, Any] = SMALL | {"min_visits": 53}  # of about fifty visits a week
    data = LogsDataModule(data_path, fold=0, validation=1, transductive=transductive, **options)
    with pytest.warns(UserWarning, match="min_visits: only .* visits are in weeks of at least 53"):
        data.setup("fit")
    monkeypatch.setattr(PairMatcher, "scores", recorded)
    module = PairMatcher(width=0)
    L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
    ).validate(module, data, verbose=False)
    whole = load_xdt(data_path) if transductive else data.validation
    assert torch.equal(seen["A"].here, task_vocabulary(whole, "A", 53).here)
    if transductive:
        assert seen["B"] is data.known
    else:
        assert torch.equal(
            seen["B"].here, task_vocabulary(whole, "B", 53, data.known.frequencies()).here
        )


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"fold": 5}, "fold: expected a fold from 0 to 4, got 5"),
        ({"fold": -1}, "fold: expected a fold from 0 to 4, got -1"),
        ({"fold": 1.5}, r"fold: expected a fold from 0 to 4, got 1\.5"),
        ({"validation": 9}, "validation: expected a fold from 0 to 4, got 9"),
        ({"fold": 2, "validation": 2}, "validation: fold 2 is left out for a test"),
    ],
)
def test_folds_that_are_not_there_or_twice_are_refused(folds, message):
    with pytest.raises(ValueError, match=message):
        LogsDataModule("xdt.npz", **folds)


def test_tasks_without_a_true_pair_say_so(data_path, tmp_path):
    module = fitted(data_path, tmp_path, 1)
    others = load_xdt(write_xdt(tmp_path / "others.npz", n_users=8, seed=3))
    strangers = others.select((others.kinds == 0).nonzero()[:, 0])
    found = evaluate(module, strangers, min_visits=10)  # one device each, of several weeks
    assert found["A"] == {
        "devices": 8, "note": "task A has no pair of one user's devices among 8"
    }  # fmt: skip
    assert found["B"]["true_pairs"] > 0
    with pytest.raises(ValueError, match="task A has no pair of one user's devices"):
        evaluate(module, strangers, min_visits=70)


def test_windows_without_visits_end_the_training(data_path):
    logs = load_xdt(data_path)
    with pytest.raises(ValueError, match=r"of 18 windows of 0\.001 to 0\.002 days only 0 have"):
        WindowEpisodes(logs, 1, 6, 3, (0.001, 0.002), 10)[0]
    with pytest.raises(ValueError, match="logs: 0 people have 1000 visits"):
        WindowEpisodes(logs, 1, 6, 3, (4.0, 10.0), 1000)
