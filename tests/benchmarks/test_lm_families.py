"""The comparison of families trains, decodes, writes its table, and keeps what it has."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import lm_families

from nemotron_blocks import HybridConfig, HybridLM
from nemotron_blocks.cache import KeyValues

SHORT = """
--data.sources [texts] --data.vocab_size 300 --data.length 32 --data.batch 2 --data.validation 0.3
--model.config.d_model 32 --model.config.d_ff 32 --model.config.mamba_head_dim 8
--model.config.d_state 8 --model.config.head_dim 8 --trainer.enable_progress_bar false
--trainer.accelerator cpu --trainer.limit_val_batches 1 --trainer.val_check_interval 2
--trainer.log_every_n_steps 1
"""


@pytest.fixture
def short(monkeypatch, tmp_path) -> list[str]:
    """Options of a short run of one family."""
    for k in range(30):
        lines = [f"def f_{k}_{j}(x):\n    return x + {j}\n" for j in range(8)]
        (tmp_path / f"{k}.py").write_text("\n".join(lines))
    changes = {"pattern": "ME*/*", "n_experts": 4, "top_k": 2, "d_expert": 16, "d_shared": 16}
    monkeypatch.setattr(lm_families, "FAMILIES", {"experts, tokens ahead": changes})
    monkeypatch.setattr(lm_families, "CONTEXTS", (1024, 2048))
    return SHORT.replace("texts", str(tmp_path)).split()


def test_a_short_run_writes_table_and_picture_and_keeps_them(short, monkeypatch, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["lm_families.py", "--steps", "4", "--threads", "1", "--repeats", "2"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(out), *short])
    lm_families.main()
    text = (out / "families.md").read_text()
    assert "| experts, tokens ahead |" in text
    assert (out / "families.png").stat().st_size > 0
    written = (out / "families.csv").read_text()
    monkeypatch.setattr(lm_families, "decoding", None)  # a second run asks for nothing
    lm_families.main()
    assert (out / "families.csv").read_text() == written
    assert text.splitlines()[:3] == capsys.readouterr().out.splitlines()[:3]


def test_a_filled_cache_decodes_and_is_as_long_afterwards():
    torch.manual_seed(0)
    config = HybridConfig(
        "M*", d_model=32, vocab_size=50, n_heads=4, n_kv_heads=2, head_dim=8, mamba_heads=4,
        mamba_head_dim=8, n_groups=2, d_state=8,
    )  # fmt: skip
    model = HybridLM(config)
    with torch.no_grad():
        cache = lm_families.filled(model, 700)
        (_, kept) = cache.layers
        assert isinstance(kept, KeyValues)
        assert bool((kept.keys[:, :, :700] != 0).all())
        lm_families.decode(model, cache)
    assert cache.length == 700


def test_later_runs_replace_what_they_log_again(tmp_path):
    for version, rows in ((0, "0,5.0\n10,4.0\n"), (1, "10,3.0\n20,2.0\n")):
        folder = tmp_path / "csv" / f"version_{version}"
        folder.mkdir(parents=True)
        Path(folder / "metrics.csv").write_text("step,val/loss\n" + rows)
    found = lm_families.logged(tmp_path / "model")["val/loss"]
    assert found == [(0, 5.0), (10, 3.0), (20, 2.0)]
