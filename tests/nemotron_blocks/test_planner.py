"""Parameters of the published models, from their configs; operations against a count by hand."""

import pytest

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.planner import plan
from nemotron_blocks.presets import PRESETS

PUBLISHED = {  # billions, all and active
    "nemotron-h-8b": (8.10, None),
    "nemotron-h-4b": (4.49, None),
    "nemotron-h-56b": (56.32, None),
    "nemotron-h-47b": (46.79, None),
    "nemotron-nano-12b-v2": (12.31, None),
    "nemotron-nano-9b-v2": (8.89, None),
    "nemotron-3-nano-4b": (3.97, None),
    "nemotron-3-nano-30b-a3b": (31.58, 3.58),
    "nemotron-3-super-120b-a12b": (120.67, 12.77),
    "nemotron-3-ultra-550b-a55b": (549.3, 56.06),
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name):
    found = plan(HybridConfig.preset(name))
    total, active = PUBLISHED[name]
    digits = 1 if total > 500 else 2
    assert round(found.parameters / 1e9, digits) == total
    if active:
        assert round(found.active / 1e9, 2) == active


SMALL = HybridConfig(
    pattern="M*-E/*E", d_model=8, vocab_size=10, n_heads=2, n_kv_heads=1, head_dim=4, d_ff=16,
    mamba_heads=2, mamba_head_dim=4, n_groups=1, d_state=3, d_conv=4, chunk_size=4,
    n_experts=4, top_k=2, d_expert=5, d_shared=6,
)  # fmt: skip
MAMBA = 8 * (8 + 14 + 2) + 8 * 8 + (4 + 1) * 14 + 3 * 2 + 8  # 14: channels of x, B and C
ATTENTION = 8 * (8 + 4 + 4) + 8 * 8
MLP = 8 * 16 + 16 * 8
EXPERT, AROUND = 8 * 5 + 5 * 8, 8 * 6 + 6 * 8 + 4 * 8  # shared expert and router


def test_operations_of_a_small_model_are_those_counted_by_hand():
    found = plan(SMALL, context=9)
    by_name = {part.name: part.flops for part in found.parts}
    assert by_name == {
        # Inside a chunk, half of 4 x 4 products of C and B, and of these with x; into and out of
        # the state.
        "Mamba-2": 2 * MAMBA + (2 * 3 + 2 * 8) * 4 / 2 + 2 * 8 * 3 + 2 * 8 * 3,
        # 1 to 9 tokens are attended to, 5 in the mean: queries with keys, weights with values.
        "attention": 2 * ATTENTION + (2 * 8 + 2 * 8) * 5,
        "MLP": 2 * MLP,
        "mixture of experts": 2 * (2 * EXPERT + AROUND),
        "embedding": 0,
        "norm and output": 2 * 8 * 10,
    }
    assert found.flops == 820 + 544 + 512 + 576 + 160
    ahead = {part.name: part.flops for part in found.ahead}
    assert ahead == {
        "attention": by_name["attention"],
        "mixture of experts": by_name["mixture of experts"],
        "norms and projection": 2 * 16 * 8,
    }
    latent = plan(SMALL.changed(d_latent=2), context=9)
    experts = next(part for part in latent.parts if part.name == "mixture of experts")
    assert experts.flops == 2 * (2 * (2 * 5 + 5 * 2) + AROUND + 8 * 2 + 2 * 8)


def test_a_chunk_is_no_longer_than_the_context():
    assert plan(SMALL, context=2).flops == plan(SMALL.changed(chunk_size=2), context=2).flops


def test_the_table_has_a_row_for_each_kind_of_block_and_the_memory_of_the_batch():
    header, *rows, total, memory = str(plan(SMALL, context=9, batch=3)).splitlines()
    assert {len(row) for row in rows} == {len(header)}
    assert header.split("  ")[-1] == "cache, MB a sequence"
    assert [row.split()[-5:] for row in rows] == [
        ["1", str(MAMBA + 8), str(MAMBA + 8), "0.000", "0.00"],
        ["1", str(ATTENTION + 8), str(ATTENTION + 8), "0.000", "0.00"],
        ["1", str(MLP + 8), str(MLP + 8), "0.000", "0.00"],
        ["1", str(4 * EXPERT + AROUND + 8), str(2 * EXPERT + AROUND + 8), "0.000", "0.00"],
        ["1", "80", "80", "0.000", "0.00"],
        ["1", "88", "88", "0.000", "0.00"],
        ["1", str(ATTENTION + 8), str(ATTENTION + 8), "0.000", "0.00"],
        ["1", str(4 * EXPERT + AROUND + 8), str(2 * EXPERT + AROUND + 8), "0.000", "0.00"],
        ["1", "152", "152", "0.000", "0.00"],
    ]
    assert [row.strip().split("  ")[0] for row in rows] == [
        "Mamba-2", "attention", "MLP", "mixture of experts", "embedding", "norm and output",
        "ahead: attention", "ahead: mixture of experts", "ahead: norms and projection",
    ]  # fmt: skip
    assert total == "0.00B parameters, 0.00B active, and 0.00B that predict tokens ahead"
    weights = MAMBA + 2 * ATTENTION + MLP + 2 * (4 * EXPERT + AROUND) + 6 * 8 + 80 + 88 + 152
    keys_and_values = 2 * 3 * 2 * 9 * 2 * 4  # blocks, sequences, both, tokens, bytes, width
    states = 3 * (4 * 8 * 3 + 2 * 3 * 14)
    assert memory == (
        f"weights {2 * weights / 1000:.3g} kB; at 9 tokens and batch 3: "
        f"keys and values {keys_and_values} B, states {states} B"
    )


def test_the_table_of_a_large_model_is_in_billions_and_gigabytes():
    found = str(plan(HybridConfig.preset("nemotron-3-nano-30b-a3b"), context=131_072))
    assert "31.58B parameters, 3.58B active" in found
    # 6 blocks, keys and values, 131,072 tokens, 2 heads of 128, 2 bytes.
    assert "weights 63.2 GB; at 131,072 tokens and batch 1: keys and values 805 MB" in found
