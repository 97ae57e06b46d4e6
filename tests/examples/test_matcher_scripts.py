"""The matcher is trained by one script and applied to other people's logs by another."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
for folder in ("examples", "tests/graphnets/matching"):
    sys.path.insert(0, str(ROOT / folder))

import evaluate_matcher  # noqa: E402
from small_logs import write_xdt  # noqa: E402


def trained(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the training script in a folder, with the shipped configuration made short."""
    program = [sys.executable, str(ROOT / "examples" / "train_matcher.py"), "fit"]
    config = ["--config", str(ROOT / "examples" / "train_matcher.yaml")]
    short = ["--data.episodes", "2", "--data.users", "6", "--trainer.max_epochs", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    return subprocess.run(
        [*program, *config, *short, *options],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of a short training, and its checkpoint."""
    folder = tmp_path_factory.mktemp("matcher")
    data = write_xdt(folder / "xdt.npz")
    done = trained(folder, "--data.path", str(data))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, folder / "runs" / "matcher" / "checkpoints" / "last.ckpt"


def test_the_checkpoint_is_applied_to_other_people(run):
    folder, checkpoint = run
    others = write_xdt(folder / "others.npz", n_users=8, seed=3)
    out = folder / "metrics.json"
    arguments = ["--data", str(others), "--checkpoint", str(checkpoint), "--out", str(out)]
    evaluate_matcher.main([*arguments, "--pictures", str(folder / "pictures")])
    pictures = sorted(path.name for path in (folder / "pictures").iterdir())
    assert pictures == ["stages_A.png", "stages_B.png", "stages_B1.png"]
    found = json.loads(out.read_text())
    assert set(found) == {"A", "B", "B1"}
    for task in found.values():
        assert task["scored"] == "all"
        assert task["average_precision"] > 0.5  # chance is about 0.1
        assert 0 <= task["f1"] <= task["f1_optimistic"]  # decided as real logs are: see the config
        assert 0.5 < task["candidates"]["candidate_recall"] <= 1
        assert 1 <= task["users"]["clusters"] <= task["devices"]


def test_candidates_alone_are_scored_where_asked(run):
    folder, checkpoint = run
    others, out = write_xdt(folder / "few.npz", n_users=8, seed=3), folder / "few.json"
    arguments = ["--data", str(others), "--checkpoint", str(checkpoint), "--out", str(out)]
    evaluate_matcher.main([*arguments, "--pairs", "candidates"])
    assert {task["scored"] for task in json.loads(out.read_text()).values()} == {"candidates"}


def test_people_it_was_trained_on_are_noticed(run):
    folder, checkpoint = run
    arguments = ["--checkpoint", str(checkpoint), "--out", str(folder / "known.json")]
    with pytest.warns(UserWarning, match="trained on 30 of these 30 devices"):
        evaluate_matcher.main([*arguments, "--data", str(folder / "xdt.npz")])
    out = str(folder / "no such folder" / "x.json")
    with pytest.raises(SystemExit):
        evaluate_matcher.main([*arguments[:2], "--out", out, "--data", "x"])


def test_decisions_that_know_the_test_users_are_refused(tmp_path):
    write_xdt(tmp_path / "xdt.npz")
    done = trained(tmp_path, "--data.path", "xdt.npz", "--data.fold", "0")
    assert done.returncode != 0
    assert "decisions: those given have seen the labels of all users" in done.stderr


def test_a_run_goes_on_from_its_checkpoint(run):
    folder, checkpoint = run
    options = (
        "--data.path",
        "xdt.npz",
        "--trainer.max_epochs",
        "3",
        "--ckpt_path",
        str(checkpoint),
    )
    done = trained(folder, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list(checkpoint.parent.glob("epoch=2-*.ckpt"))


def test_a_damaged_checkpoint_is_named(run, tmp_path):
    (tmp_path / "half.ckpt").write_bytes(b"half")
    done = trained(tmp_path, "--data.path", "xdt.npz", "--ckpt_path", "half.ckpt")
    assert done.returncode != 0
    assert "checkpoint: half.ckpt is cut short, damaged" in done.stderr
