"""The script trains, goes on from a checkpoint, and leaves a model that loads and speaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nemotron_blocks import HybridLM
from nemotron_blocks.tokenizer import BPETokenizer

ROOT = Path(__file__).parents[2]
SHORT = """
--data.sources [texts] --data.vocab_size 300 --data.length 32 --data.batch 2 --data.validation 0.3
--model.config.pattern MEM*E/*E --model.config.d_model 32 --model.config.d_ff 32
--model.config.mamba_head_dim 8 --model.config.d_state 8 --model.config.head_dim 8
--model.config.d_expert 16 --model.config.d_shared 16
--trainer.enable_progress_bar false --trainer.accelerator cpu --trainer.limit_val_batches 1
--trainer.val_check_interval 4
"""


def trained(folder: Path, *options: str) -> subprocess.CompletedProcess:
    program = [sys.executable, str(ROOT / "examples" / "train_lm.py"), "fit"]
    config = ["--config", str(ROOT / "examples" / "train_lm.yaml")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    return subprocess.run(
        [*program, *config, *SHORT.split(), *options],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of a short training."""
    folder = tmp_path_factory.mktemp("lm")
    (folder / "texts").mkdir()
    for k in range(30):
        lines = [f"def f_{k}_{j}(x):\n    return x + {j}\n" for j in range(8)]
        (folder / "texts" / f"{k}.py").write_text("\n".join(lines))
    done = trained(folder, "--trainer.max_steps", "50", "--prompt", "def f")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "def f" in done.stdout
    return folder


def test_the_model_that_is_written_loads(folder):
    model = HybridLM.from_pretrained(folder / "runs" / "lm" / "model")
    tokenizer = BPETokenizer.load(folder / "runs" / "lm" / "model" / "tokenizer.json")
    assert model.config.vocab_size == 300 >= tokenizer.vocab_size
    tokens = torch.tensor([tokenizer.encode("def f_3_1(x):\n    return")])
    loss = torch.nn.functional.cross_entropy(model(tokens)[0, :-1], tokens[0, 1:])
    assert float(loss) < 4.5  # log 300 is 5.7
    assert len(model.generate(tokens, 5, speculative=True).tokens[0]) == 5


def test_a_run_goes_on_from_its_checkpoint(folder):
    checkpoint = "runs/lm/checkpoints/last.ckpt"
    done = trained(folder, "--trainer.max_steps", "54", "--ckpt_path", checkpoint)
    assert done.returncode == 0, done.stderr[-3000:]
    assert torch.load(folder / checkpoint, weights_only=False)["global_step"] >= 50
    refused = trained(folder, "--trainer.max_steps", "54", "--ckpt_path", "absent.ckpt")
    assert refused.returncode == 1
    assert "checkpoint: no file absent.ckpt" in refused.stderr
