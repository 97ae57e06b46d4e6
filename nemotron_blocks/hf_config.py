"""The config.json of Hugging Face's `nemotron_h`, read in every spelling and written in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nemotron_blocks.config import HybridConfig

MODEL_TYPE = "nemotron_h"
SYMBOLS = {
    "mamba": "M", "mamba2": "M", "linear_attention": "M",
    "attention": "*", "full_attention": "*",
    "mlp": "-",
    "moe": "E",
}  # fmt: skip
"""Names of layers, of all releases of transformers, by what a pattern calls them."""

_NAMES = {  # ours by theirs, where nothing but the name differs
    "hidden_size": "d_model",
    "vocab_size": "vocab_size",
    "num_attention_heads": "n_heads",
    "num_key_value_heads": "n_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "d_ff",
    "mamba_num_heads": "mamba_heads",
    "mamba_head_dim": "mamba_head_dim",
    "n_groups": "n_groups",
    "ssm_state_size": "d_state",
    "conv_kernel": "d_conv",
    "chunk_size": "chunk_size",
    "n_routed_experts": "n_experts",
    "num_experts_per_tok": "top_k",
    "moe_intermediate_size": "d_expert",
    "moe_latent_size": "d_latent",
    "routed_scaling_factor": "route_scale",
    "n_group": "n_group",
    "topk_group": "topk_group",
    "norm_topk_prob": "norm_topk",
    "layer_norm_epsilon": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "initializer_range": "init_std",
    "time_step_min": "dt_min",
    "time_step_max": "dt_max",
    "time_step_floor": "dt_floor",
}
_OLD_NAMES = {
    "mamba_n_groups": "n_groups",
    "mamba_d_conv": "conv_kernel",
    "mamba_dt_min": "time_step_min",
    "mamba_dt_max": "time_step_max",
    "mamba_dt_limit": "time_step_limit",
    "mamba_dt_init_floor": "time_step_floor",
    "mamba_conv_bias": "use_conv_bias",
    "mamba_chunk_size": "chunk_size",
    "attention_head_dim": "head_dim",
    "rms_norm_eps": "layer_norm_epsilon",
    "num_local_experts": "n_routed_experts",
    "layer_types": "layers_block_type",
}
_FIXED = {  # what these models have in common, and this library takes for granted
    "mlp_hidden_act": "relu2",
    "mamba_hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "mamba_proj_bias": False,
    "use_bias": False,
    "use_conv_bias": True,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    "sliding_window": None,
}


def fields_of(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `HybridConfig`.

    `expand`, positions and rotary fields mean nothing in these models, and are not looked at.

    Raises:
        ValueError: it is of another model, says nothing of the layers, or asks for what this
            library lacks.
    """
    given = {_OLD_NAMES.get(name, name): value for name, value in config.items()}
    if given.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        raise ValueError(f"model_type: expected {MODEL_TYPE!r}, got {given['model_type']!r}")
    for name, value in _FIXED.items():
        if given.get(name, value) != value:
            raise ValueError(f"{name}: this library has {value!r} alone, got {given[name]!r}")
    fields = {ours: given[theirs] for theirs, ours in _NAMES.items() if theirs in given}
    fields["pattern"] = _pattern(given)
    if given.get("n_shared_experts", 1):
        fields["d_shared"] = given.get("moe_shared_expert_intermediate_size", 0)
    if "time_step_limit" in given:
        low, high = (_number(value) for value in given["time_step_limit"])
        fields["dt_limit"] = (low, high)
    return fields


def config_of(config: HybridConfig) -> dict[str, Any]:
    """The config.json, with the names of layers that every release of transformers reads."""
    found: dict[str, Any] = {"model_type": MODEL_TYPE, "architectures": ["NemotronHForCausalLM"]}
    found |= {theirs: getattr(config, ours) for theirs, ours in _NAMES.items()}
    if config.d_latent is None:
        del found["moe_latent_size"]
    found |= {
        "hybrid_override_pattern": config.layers,
        "num_hidden_layers": len(config.layers),
        "n_shared_experts": int(config.d_shared > 0),
        "moe_shared_expert_intermediate_size": config.d_shared,
        "num_nextn_predict_layers": config.mtp_depth,
        **_FIXED,
    }
    if config.mtp_depth:
        found["mtp_hybrid_override_pattern"] = config.mtp_layers
    low, high = config.dt_limit
    if (low, high) != (0.0, math.inf):  # JSON has no infinity
        found["time_step_limit"] = [low, high]
    return found


def _number(value: float | dict[str, str]) -> float:
    """A number, or what transformers writes for one that JSON lacks."""
    return float(value["__float__"] if isinstance(value, dict) else value)


def _pattern(given: dict[str, Any]) -> str:
    """The pattern string, from a string or a list of names of layers."""
    main = _symbols(given, "hybrid_override_pattern", "layers_block_type")
    if main is None:
        raise ValueError(
            "hybrid_override_pattern: expected the order of the layers in this field or in "
            "layers_block_type, got neither"
        )
    depth = given.get("num_nextn_predict_layers", 0)
    if not depth:
        return main
    ahead = _symbols(given, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    return main + depth * ("/" + (ahead or "*E"))


def _symbols(given: dict[str, Any], string: str, names: str) -> str | None:
    if isinstance(given.get(string), str):
        return given[string].replace("|", "")  # bars are cuts of a pipeline
    layers: Sequence[str] | None = given.get(names)
    if layers is None:
        return None
    unknown = sorted(set(layers) - set(SYMBOLS))
    if unknown:
        raise ValueError(f"{names}: expected names among {sorted(SYMBOLS)}, got {unknown}")
    return "".join(SYMBOLS[name] for name in layers)
