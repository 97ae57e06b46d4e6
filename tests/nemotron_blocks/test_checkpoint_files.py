"""A checkpoint takes the place of an older one whole, in little memory, from any process."""

import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from processes import run_together
from small_models import small_model

from nemotron_blocks.model import HybridLM
from nemotron_blocks.weight_files import CONFIG, INDEX, NewFiles

SHARDED, WHOLE = 20_000, 10**9


def the_same(found, model):
    """Whether the config and all weights are this model's."""
    pairs = zip(found.state_dict().values(), model.state_dict().values(), strict=True)
    return found.config == model.config and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def older():
    return small_model("M*E", seed=0)


@pytest.fixture
def newer():
    return small_model("M*E", seed=1, norm_eps=1e-3)  # its weights fit the older config too


@pytest.mark.parametrize("sizes", [(SHARDED, WHOLE), (WHOLE, SHARDED), (SHARDED, 2 * SHARDED)])
def test_nothing_of_an_older_checkpoint_stays(tmp_path, older, newer, sizes):
    older.save_pretrained(tmp_path, shard_bytes=sizes[0])
    (tmp_path / "tokenizer.json").write_text("{}")
    newer.save_pretrained(tmp_path, shard_bytes=sizes[1])
    assert the_same(HybridLM.from_pretrained(tmp_path), newer)
    newer.save_pretrained(tmp_path / "alone", shard_bytes=sizes[1])
    alone = {path.name for path in (tmp_path / "alone").iterdir()}
    found = {path.name for path in tmp_path.iterdir() if path.is_file()}
    assert found == alone | {"tokenizer.json"}


class Killed(BaseException):
    """What a process that is killed does not handle."""


def killed_in(monkeypatch, step):
    """Let the process be killed in front of so many changes of files."""
    steps = count()

    def until(change):
        def changed(*args, **options):
            if next(steps) == step:
                raise Killed
            return change(*args, **options)

        return changed

    monkeypatch.setattr(Path, "unlink", until(Path.unlink))
    monkeypatch.setattr(Path, "replace", until(Path.replace))
    monkeypatch.setattr(NewFiles, "add_weights", until(NewFiles.add_weights))


def left_behind(folder, older):
    """What a reader of the folder gets."""
    try:
        found = HybridLM.from_pretrained(folder)
    except FileNotFoundError:
        return "refused"
    return "older" if the_same(found, older) else "mixture"


@pytest.mark.parametrize("sizes", [(SHARDED, WHOLE), (WHOLE, SHARDED), (SHARDED, SHARDED)])
def test_a_process_that_is_killed_leaves_no_mixture(tmp_path, monkeypatch, older, newer, sizes):
    found = []
    for step in count():
        folder = tmp_path / str(step)
        older.save_pretrained(folder, shard_bytes=sizes[0])
        with monkeypatch.context() as patch:
            killed_in(patch, step)
            try:
                newer.save_pretrained(folder, shard_bytes=sizes[1])
                break
            except Killed:
                pass
        found.append(left_behind(folder, older))
        newer.save_pretrained(folder, shard_bytes=sizes[1])
        assert the_same(HybridLM.from_pretrained(folder), newer)
        assert not list(folder.glob("*.partial"))
    assert the_same(HybridLM.from_pretrained(folder), newer)
    assert set(found) == {"older", "refused"}
    assert found == sorted(found)  # the older one is there until all is written


def save_often(folder: str) -> list[bool]:
    """Both processes save, and read, the same folder."""
    found = []
    for seed in range(15):
        model = small_model("M*", seed=seed)
        model.save_pretrained(folder)
        found.append(the_same(HybridLM.from_pretrained(folder), model))
        dist.barrier()  # the next model is not to come while one reads
    return found


def test_one_of_several_processes_writes_and_the_others_wait(tmp_path):
    model = str(tmp_path / "model")
    found = run_together(save_often, 2, tmp_path, model, preload=["nemotron_blocks"])
    assert found == [[True] * 15] * 2


def fail(folder: str) -> str:
    """The folder is a file: the first process cannot write."""
    try:
        small_model("M*").save_pretrained(folder)
    except FileExistsError:
        return "failed"
    return "went on"


def test_others_do_not_wait_for_ever_where_one_fails(tmp_path):
    (tmp_path / "model").touch()
    assert run_together(fail, 2, tmp_path, str(tmp_path / "model")) == ["failed", "went on"]


MEMORY = """
import sys, threading, time
from nemotron_blocks import HybridConfig, HybridLM
import safetensors.torch

def anonymous():
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith("RssAnon"))

def rise(act):
    peak, done = [0], threading.Event()
    def watch():
        while not done.is_set():
            peak[0] = max(peak[0], anonymous())
            time.sleep(0.001)
    thread, before = threading.Thread(target=watch), anonymous()
    thread.start()
    result = act()
    done.set()
    thread.join()
    return (peak[0] - before) / size, result

config = HybridConfig(pattern="*", d_model=1024, vocab_size=16_000, n_heads=8, n_kv_heads=8)
model = HybridLM(config)
size = sum(weight.nbytes for weight in model.parameters())
saved, _ = rise(lambda: model.save_pretrained(sys.argv[1]))
loaded, found = rise(lambda: HybridLM.from_pretrained(sys.argv[1]))
print(saved, loaded)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="no /proc: memory of checkpoints NOT tested")
def test_saving_copies_nothing_and_loading_takes_the_model_alone(tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, check=True
    )
    saved, loaded = map(float, found.stdout.split())  # in models' sizes, beside mapped files
    assert saved < 0.15
    assert 0.9 < loaded < 1.15


def test_files_that_are_damaged_are_named(tmp_path, older):
    older.save_pretrained(tmp_path, shard_bytes=SHARDED)
    index = (tmp_path / INDEX).read_text()
    for text, message in (
        (index[:-40], rf"{INDEX} is cut short or damaged"),
        ("[]", rf"{INDEX}: expected an object, got list"),
        ("{}", rf"{INDEX}: expected weight_map to give"),
        ('{"weight_map": []}', rf"{INDEX}: expected weight_map to give"),
        ('{"weight_map": {"a": "../b.safetensors"}}', rf"{INDEX}: expected weight_map to give"),
        ('{"weight_map": {"a": 7}}', rf"{INDEX}: expected weight_map to give"),
    ):
        (tmp_path / INDEX).write_text(text)
        with pytest.raises(ValueError, match=message):
            HybridLM.from_pretrained(tmp_path)
    (tmp_path / INDEX).write_text(index)
    for data, message in (
        (b"[]", f"{CONFIG}: expected an object, got list"),
        (b"\xff\xfe{", f"{CONFIG} is cut short or damaged"),
        (b"[" * 100_000, f"{CONFIG} is cut short or damaged"),
    ):
        (tmp_path / CONFIG).write_bytes(data)
        with pytest.raises(ValueError, match=message):
            HybridLM.from_pretrained(tmp_path)
