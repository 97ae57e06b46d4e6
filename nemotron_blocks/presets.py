"""The published architectures: Nemotron-H, Nemotron Nano 2, Nemotron 3.

A. Blakeman et al., arXiv:2504.03624; arXiv:2508.14444; arXiv:2512.20848; arXiv:2604.12374;
arXiv:2606.15007; the 4B one of A. Taghibakhshi et al., arXiv:2504.11409.
"""

from __future__ import annotations

from typing import Any

_H8 = "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-"
_H56 = "M-M-M-M*-" + 9 * "M-M-M-M-M*-" + "M-M-M-M-M-"
_H47 = (
    "M-M-M-M-M-M-M-M-M*-M-M-M-M-M-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-M-M---MM---M-M*-"
    "M-M-M-M-M-"
)
_NANO_12B = "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-"
_NANO_9B = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
_NANO_4B = "M-M-M-MM-M-M*-M-M*-M-M-M*-M-M-MM*-MMM-M-M-"
_NANO_30B = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME"
_SUPER = "MEMEMEM*EMEMEMEM*EMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEMEM*EMEMEMEM*EMEMEMEME"
_ULTRA = (
    "MEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM*EMEMEM*"
    "EMEMEMEM*EMEMEMEME"
)


def _dense(
    pattern: str, d_model: int, d_ff: int, heads: tuple[int, int], mamba: tuple[int, int, int]
) -> dict[str, Any]:
    """Fields of a model without experts; heads are (queries, keys), mamba (heads, width, state)."""
    return {
        "pattern": pattern,
        "d_model": d_model,
        "d_ff": d_ff,
        "n_heads": heads[0],
        "n_kv_heads": heads[1],
        "mamba_heads": mamba[0],
        "mamba_head_dim": mamba[1],
        "d_state": mamba[2],
    }


def _latent(pattern: str, d_model: int, d_expert: int, n_heads: int, mamba: int) -> dict[str, Any]:
    """Fields of a model with 512 latent experts, 22 a token, and a token predicted ahead."""
    return _dense(pattern + "/*E", d_model, 0, (n_heads, 2), (mamba, 64, 128)) | {
        "n_experts": 512,
        "top_k": 22,
        "d_expert": d_expert,
        "d_shared": 2 * d_expert,
        "d_latent": d_model // 4,
        "route_scale": 5.0,
    }


PRESETS: dict[str, dict[str, Any]] = {
    "nemotron-h-8b": _dense(_H8, 4096, 21504, (32, 8), (128, 64, 128)),
    "nemotron-h-4b": _dense(_H8, 3072, 12288, (32, 8), (112, 64, 128)),
    "nemotron-h-56b": _dense(_H56, 8192, 32768, (64, 8), (256, 64, 256)) | {"init_std": 0.0099},
    "nemotron-h-47b": _dense(_H47, 8192, 30720, (64, 8), (256, 64, 256)),
    "nemotron-nano-12b-v2": _dense(_NANO_12B, 5120, 20480, (40, 8), (128, 80, 128)),
    "nemotron-nano-9b-v2": _dense(_NANO_9B, 4480, 15680, (40, 8), (128, 80, 128)),
    "nemotron-3-nano-4b": _dense(_NANO_4B, 3136, 12544, (40, 8), (96, 80, 128))
    | {"chunk_size": 256},
    "nemotron-3-nano-30b-a3b": _dense(_NANO_30B, 2688, 0, (32, 2), (64, 64, 128))
    | {
        "n_experts": 128,
        "top_k": 6,
        "d_expert": 1856,
        "d_shared": 3712,
        "route_scale": 2.5,
        "init_std": 0.0173,
    },
    "nemotron-3-super-120b-a12b": _latent(_SUPER, 4096, 2688, 32, 128) | {"init_std": 0.014},
    "nemotron-3-ultra-550b-a55b": _latent(_ULTRA, 8192, 5120, 64, 256) | {"init_std": 0.0099},
}
"""Fields of `HybridConfig` by name."""
