"""The config.json of Hugging Face's `nemotron_h`, read in every spelling and written in one."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from nemotron_blocks.config import NEEDS, HybridConfig

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
    "residual_in_fp32": False,
}
HANDED_ON = ("bos_token_id", "eos_token_id", "pad_token_id", "max_position_embeddings")
"""What others read in the file: where a sequence ends, and how long it may be."""
_ALWAYS = ("d_model", "vocab_size")  # whatever the layers
_DEFAULTS = {field.name: field.default for field in fields(HybridConfig)}
"""Those other than 0 are those of transformers too."""
_TYPES = {field.name: field.type for field in fields(HybridConfig)}
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {  # by the annotations of HybridConfig
    "int": ("an integer", (int,)),
    "int | None": ("an integer or null", (int, type(None))),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
}


def fields_of(config: dict[str, Any]) -> dict[str, Any]:
    """Fields of `HybridConfig`.

    `expand`, positions and rotary fields mean nothing in these models, and are not looked at.

    Raises:
        ValueError: it is of another model, says nothing of the layers, lacks a size that they
            need, has a field of another type, or asks for what this library lacks.
    """
    given = {_OLD_NAMES.get(name, name): value for name, value in config.items()}
    if given.get("model_type", MODEL_TYPE) != MODEL_TYPE:
        raise ValueError(f"model_type: expected {MODEL_TYPE!r}, got {given['model_type']!r}")
    for name, value in _FIXED.items():
        if given.get(name, value) != value:
            raise ValueError(f"{name}: this library has {value!r} alone, got {given[name]!r}")
    pattern = _pattern(given)
    names = dict(_NAMES)
    if given.get("n_shared_experts", 1):
        names["moe_shared_expert_intermediate_size"] = "d_shared"
    found = _sizes(given, names, pattern)
    if given.get("time_step_limit") is not None:
        found["dt_limit"] = _limit(given["time_step_limit"])
    others = {name: given[name] for name in HANDED_ON if name in given}
    return found | {"pattern": pattern, "others": others}


def _sizes(given: dict[str, Any], names: dict[str, str], pattern: str) -> dict[str, Any]:
    """Fields that are there, by our names; those of kinds of blocks that it lacks may be null."""
    of_kinds = NEEDS | {"E": (*NEEDS["E"], "d_shared")}
    needed = {name for symbol in of_kinds if symbol in pattern for name in of_kinds[symbol]}
    unneeded = {name for group in of_kinds.values() for name in group} - needed
    found = {}
    for theirs, name in names.items():
        value, (kind, types) = given.get(theirs), _KINDS[_TYPES[name]]
        if value is None and name in unneeded:
            continue
        if theirs not in given:
            if name in _ALWAYS or (name in needed and not _DEFAULTS[name]):
                raise ValueError(f"{theirs}: expected {kind} for {pattern!r}, got none")
            continue
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise ValueError(f"{theirs}: expected {kind}, got {value!r}")
        found[name] = value
    return found


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
        **config.others,
    }
    if config.mtp_depth:
        found["mtp_hybrid_override_pattern"] = config.mtp_layers
    low, high = config.dt_limit
    if (low, high) != (0.0, math.inf):  # JSON has no infinity
        found["time_step_limit"] = [low, high]
    return found


def _limit(value: Any) -> tuple[float, float]:
    """Two numbers, or what transformers writes for those that JSON lacks."""
    try:
        low, high = (float(v["__float__"] if isinstance(v, dict) else v) for v in value)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"time_step_limit: expected two numbers, got {value!r}") from error
    return low, high


def _pattern(given: dict[str, Any]) -> str:
    """The pattern string, from a string or a list of names of layers."""
    main = _symbols(given, "hybrid_override_pattern", "layers_block_type")
    if main is None:
        raise ValueError(
            "hybrid_override_pattern: expected the order of the layers in this field or in "
            "layers_block_type, got neither"
        )
    count, layers = given.get("num_hidden_layers"), len(main.partition("/")[0])
    if count is not None and count != layers:
        raise ValueError(
            f"num_hidden_layers: expected {layers}, the length of {main!r}, got {count!r}"
        )
    depth = given.get("num_nextn_predict_layers") or 0
    if not isinstance(depth, int) or depth < 0:
        raise ValueError(f"num_nextn_predict_layers: expected 0 or more, got {depth!r}")
    if not depth:
        return main
    ahead = _symbols(given, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    return main + depth * ("/" + (ahead or "*E"))


def _symbols(given: dict[str, Any], string: str, names: str) -> str | None:
    pattern, layers = given.get(string), given.get(names)
    if pattern is not None:
        if not isinstance(pattern, str):
            raise ValueError(f"{string}: expected a string, got {pattern!r}")
        return pattern.replace("|", "")  # bars are cuts of a pipeline
    if layers is None:
        return None
    if not isinstance(layers, list | tuple):
        raise ValueError(f"{names}: expected a list, got {layers!r}")
    unknown = sorted({str(name) for name in layers} - set(SYMBOLS))
    if unknown:
        raise ValueError(f"{names}: expected names among {sorted(SYMBOLS)}, got {unknown}")
    return "".join(SYMBOLS[name] for name in layers)
