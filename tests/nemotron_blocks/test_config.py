"""Patterns and sizes that make no model are refused by name; Hugging Face's configs are read."""

import json
import math
from typing import Any

import numpy as np
import pytest
from small_models import SIZES

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.hf_config import SYMBOLS
from nemotron_blocks.presets import PRESETS


def test_a_suffix_is_a_block_that_is_applied_repeatedly():
    config = HybridConfig(pattern="M*ME/*E/*E", **SIZES)
    assert (config.layers, config.mtp_layers, config.mtp_depth) == ("M*ME", "*E", 2)
    plain = HybridConfig(pattern="M*ME", **SIZES)
    assert (plain.layers, plain.mtp_layers, plain.mtp_depth) == ("M*ME", "", 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "MXM"}, r"pattern: expected symbols M \(Mamba-2\).*got 'X'"),
        ({"pattern": ""}, "pattern: expected at least one block"),
        ({"pattern": "/*E"}, "pattern: expected at least one block"),
        ({"pattern": "M/*E/*-"}, "pattern: expected suffixes of one block"),
        ({"pattern": "M/"}, "pattern: expected suffixes of one block"),
        ({"pattern": "M/ME"}, "pattern: expected attention, MLP and experts in the suffix"),
        ({"d_model": 0}, "d_model: expected at least 1, got 0"),
        ({"mamba_heads": 3}, "n_groups: expected a divisor of mamba_heads, 3, got 2"),
        ({"mamba_heads": 0}, r"mamba_heads: expected at least 1 for 'M' \(Mamba-2\) in pattern"),
        ({"n_kv_heads": 3}, "n_kv_heads: expected a divisor of n_heads, 4, got 3"),
        ({"d_ff": 0}, "d_ff: expected at least 1 for '-'"),
        ({"top_k": 9}, "top_k: expected at most the 8 experts that a token may go to, got 9"),
        ({"n_group": 3}, "n_group: expected a divisor of n_experts, 8, got 3"),
        ({"n_group": 4, "topk_group": 5}, "topk_group: expected at most n_group, 4, got 5"),
        ({"n_group": 8, "topk_group": 1}, "top_k: expected at most the 1 experts"),
        ({"d_latent": 0}, "d_latent: expected at least 1, got 0"),
        ({"d_shared": -1}, "d_shared: expected at least 0 as a whole number, got -1"),
        ({"dt_limit": (2.0, 1.0)}, "dt_limit: expected 0 <= low <= high"),
    ],
)
def test_what_makes_no_model_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        HybridConfig(**{"pattern": "M*-E", **SIZES} | changes)


def test_sizes_of_blocks_that_are_not_there_do_not_matter():
    HybridConfig(pattern="M", d_model=8, mamba_heads=8)
    with pytest.raises(ValueError, match=r"name: expected one of nemotron-h-8b, .*'gpt-2'"):
        HybridConfig.preset("gpt-2")


@pytest.mark.parametrize("name", PRESETS)
def test_configs_go_to_hugging_face_and_back(name):
    config = HybridConfig.preset(name)
    assert HybridConfig.from_hf(config.to_hf()) == config


def test_what_others_read_in_the_file_is_handed_on():
    given = HybridConfig(pattern="M", d_model=8, mamba_heads=8).to_hf()
    ends = {"eos_token_id": [11, 12], "pad_token_id": 3, "max_position_embeddings": 131072}
    config = HybridConfig.from_hf(given | ends | {"bos_token_id": 1, "rope_theta": 1e4})
    assert config.others == ends | {"bos_token_id": 1}
    assert config.to_hf() == given | config.others
    assert config == HybridConfig.from_hf(given)  # the same model


def test_presets_can_be_changed():
    config = HybridConfig.preset("nemotron-h-8b", vocab_size=100)
    assert config.vocab_size == 100
    assert config.changed(dt_limit=(0.0, 0.1)).to_hf()["time_step_limit"] == [0.0, 0.1]


@pytest.mark.parametrize("old", [True, False])
def test_every_spelling_of_layers_is_read(old):
    config = HybridConfig(pattern="M*-E/*E", **SIZES)
    given = config.to_hf()
    del given["hybrid_override_pattern"]
    del given["mtp_hybrid_override_pattern"]
    names = {symbol: name for name, symbol in SYMBOLS.items() if ("_" in name) != old}
    names |= {"-": "mlp", "E": "moe"}
    given["layers_block_type"] = [names[symbol] for symbol in "M*-E"]
    given["mtp_layers_block_type"] = [names[symbol] for symbol in "*E"]
    given["mamba_n_groups"] = given.pop("n_groups")
    assert HybridConfig.from_hf(given) == config
    given["layers_block_type"][0] = "rwkv"
    with pytest.raises(ValueError, match=r"layers_block_type: expected names among .*'rwkv'"):
        HybridConfig.from_hf(given)


def test_what_this_library_lacks_is_refused_by_name():
    given = HybridConfig(pattern="M*-E", **SIZES).to_hf()
    for change, message in (
        ({"model_type": "llama"}, "model_type: expected 'nemotron_h', got 'llama'"),
        ({"mlp_hidden_act": "silu"}, "mlp_hidden_act: this library has 'relu2' alone"),
        ({"attention_bias": True}, "attention_bias: this library has False alone"),
        ({"hybrid_override_pattern": None}, "hybrid_override_pattern: expected the order"),
        ({"hybrid_override_pattern": 5}, "hybrid_override_pattern: expected a string, got 5"),
        ({"hybrid_override_pattern": None, "layer_types": 5}, "layers_block_type: expected a list"),
        ({"residual_in_fp32": True}, "residual_in_fp32: this library has False alone"),
        (
            {"num_hidden_layers": 99},
            "num_hidden_layers: expected 4, the length of .*, got 99",
        ),
        ({"num_nextn_predict_layers": "2"}, "num_nextn_predict_layers: expected 0 or more"),
        ({"hidden_size": None}, "hidden_size: expected an integer, got None"),
        ({"hidden_size": True}, "hidden_size: expected an integer, got True"),
        ({"vocab_size": 61.5}, "vocab_size: expected an integer, got 61.5"),
        ({"n_groups": "2"}, "n_groups: expected an integer, got '2'"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon: expected a number, got 'small'"),
        ({"norm_topk_prob": 1}, "norm_topk_prob: expected true or false, got 1"),
        ({"moe_latent_size": 1.5}, "moe_latent_size: expected an integer or null, got 1.5"),
        ({"time_step_limit": [0.1]}, "time_step_limit: expected two numbers"),
        ({"time_step_limit": 3}, "time_step_limit: expected two numbers, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            HybridConfig.from_hf(given | change)
    assert HybridConfig.from_hf(given | {"expand": 7, "rope_theta": 1e4}).d_inner == 32
    limited = HybridConfig.from_hf(given | {"time_step_limit": [0.0, math.inf]})
    assert limited.dt_limit == (0.0, math.inf)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"dt_min": 0.0}, "dt_min, dt_max: expected 0 < dt_min <= dt_max, got 0.0 and 0.1"),
        ({"dt_min": 1.0}, "dt_min, dt_max: expected 0 < dt_min <= dt_max, got 1.0 and 0.1"),
        ({"dt_limit": (0.0, 1.0, 2.0)}, "dt_limit: expected 0 <= low <= high"),
        ({"init_std": -1.0}, "init_std: expected at least 0, got -1.0"),
        ({"norm_eps": float("nan")}, "norm_eps: expected at least 0, got nan"),
    ],
)
def test_numbers_of_the_start_are_checked(changes, text):
    with pytest.raises(ValueError, match=text):
        HybridConfig("M", d_model=16, mamba_heads=8, **changes)


@pytest.mark.parametrize(
    "name",
    [
        "hidden_size",
        "vocab_size",
        "mamba_num_heads",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "n_routed_experts",
        "num_experts_per_tok",
        "moe_intermediate_size",
        "moe_shared_expert_intermediate_size",
    ],
)
def test_a_size_that_the_layers_need_is_asked_for_by_its_name_there(name):
    given = HybridConfig(pattern="M*-E", **SIZES).to_hf()
    del given[name]
    with pytest.raises(ValueError, match=rf"^{name}: expected an integer for 'M\*-E', got none"):
        HybridConfig.from_hf(given)


def test_sizes_of_other_kinds_of_layers_may_be_missing_or_null():
    config = HybridConfig(pattern="M", d_model=32, vocab_size=61, mamba_heads=8)
    given = config.to_hf()
    del given["n_routed_experts"]
    given |= {"num_attention_heads": None, "moe_intermediate_size": None, "intermediate_size": None}
    assert HybridConfig.from_hf(given) == config


def test_numbers_of_numpy_become_those_of_python():
    given: dict[str, Any] = {"pattern": "M*-E", **SIZES, "d_latent": 8, "dt_limit": (0.0, 1.0)}
    as_numpy: dict[str, Any] = {
        name: np.int64(n) if isinstance(n, int) else n for name, n in given.items()
    }
    as_numpy |= {"d_model": 32.0, "norm_eps": np.float64(1e-5), "norm_topk": np.bool_(True)}
    as_numpy |= {"dt_limit": (np.float32(0.0), np.float32(1.0))}
    config = HybridConfig(**as_numpy)
    assert config == HybridConfig(**given)
    kinds = {type(value) for value in (*vars(config).values(), *config.dt_limit)}
    assert kinds == {str, int, float, bool, tuple, dict}
    json.dumps(config.to_hf())


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"d_model": math.nan}, ValueError, "d_model: expected at least 0 as a whole number, got"),
        ({"d_model": 16.5}, ValueError, "d_model: expected at least 0 as a whole number, got 16.5"),
        ({"d_model": "16"}, TypeError, "d_model: expected a whole number, got str"),
        ({"n_heads": -1}, ValueError, "n_heads: expected at least 0 as a whole number, got -1"),
        ({"route_scale": math.nan}, ValueError, "route_scale: expected at least 0, got nan"),
        ({"norm_eps": "1e-5"}, TypeError, "norm_eps: expected a number, got str"),
        ({"dt_limit": (0.0, math.nan)}, ValueError, "dt_limit: expected at least 0, got nan"),
    ],
)
def test_what_is_no_number_is_named(changes, error, text):
    with pytest.raises(error, match=text):
        HybridConfig(**{"pattern": "M", "d_model": 16, "mamba_heads": 8} | changes)
