"""What a hybrid model is made of: the order of its blocks, and their sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

from sparsetorch.checks import check_count

BLOCKS = {"M": "Mamba-2", "*": "attention", "-": "MLP", "E": "mixture of experts"}
NEEDS = {  # fields that blocks of a kind cannot do without
    "M": ("mamba_heads", "mamba_head_dim", "n_groups", "d_state", "d_conv", "chunk_size"),
    "*": ("n_heads", "n_kv_heads", "head_dim"),
    "-": ("d_ff",),
    "E": ("n_experts", "top_k", "d_expert", "n_group", "topk_group"),
}


@dataclass(frozen=True)
class HybridConfig:
    """A stack of Mamba-2 (M), attention (*), MLP (-) and mixture-of-experts (E) blocks.

    Each symbol of `pattern` is one pre-norm residual block. A suffix such as `/*E/*E` adds
    multi-token prediction: one block, here attention and experts, that is applied as often as the
    suffix comes. Sizes of kinds of blocks that the pattern lacks may be 0. Whole floats and NumPy's
    numbers become Python's.

    Attributes:
        pattern: such as "M*ME" or "MEM*E/*E".
        d_model: width of the residual stream.
        vocab_size: of embedding and output.
        n_heads, n_kv_heads, head_dim: of attention; heads share keys and values in groups.
        d_ff: width of MLPs.
        mamba_heads, mamba_head_dim: of Mamba-2; their product is its inner width.
        n_groups: of heads that share B and C.
        d_state: numbers a channel of the state.
        d_conv: taps of the convolution.
        chunk_size: of the scan: changes no result.
        n_experts, top_k: experts, and how many of them a token goes to.
        d_expert, d_shared: widths of a routed expert and of the shared one; 0 for no shared one.
        d_latent: width that routed experts read and write (LatentMoE); None for d_model.
        route_scale: factor of the gate weights.
        n_group, topk_group: groups of experts, and how many of them a token may go to.
        norm_topk: whether a token's gate weights are divided by their sum.
        norm_eps: of all norms.
        tie_embeddings: whether the output shares the embedding's weights.
        init_std: of normal initial weights.
        dt_min, dt_max, dt_floor: initial time steps are log-uniform between the first two, and at
            least the third.
        dt_limit: time steps are clamped to it.
        others: fields of a config.json that say nothing of the model itself, such as
            `eos_token_id`: `to_hf` hands on what `from_hf` has found.

    Raises:
        TypeError: what should be a number is none.
        ValueError: a field does not fit.
    """

    pattern: str
    d_model: int
    vocab_size: int = 131_072
    n_heads: int = 0
    n_kv_heads: int = 0
    head_dim: int = 128
    d_ff: int = 0
    mamba_heads: int = 0
    mamba_head_dim: int = 64
    n_groups: int = 8
    d_state: int = 128
    d_conv: int = 4
    chunk_size: int = 128
    n_experts: int = 0
    top_k: int = 0
    d_expert: int = 0
    d_shared: int = 0
    d_latent: int | None = None
    route_scale: float = 1.0
    n_group: int = 1
    topk_group: int = 1
    norm_topk: bool = True
    norm_eps: float = 1e-5
    tie_embeddings: bool = False
    init_std: float = 0.02
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    dt_floor: float = 1e-4
    dt_limit: tuple[float, float] = (0.0, math.inf)
    others: dict[str, Any] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        self._check_pattern()
        for each in fields(self):
            object.__setattr__(self, each.name, _plain(each.type, each.name, self))
        self._at_least_one("d_model", "vocab_size")
        for symbol, needed in NEEDS.items():
            if symbol in self.pattern:
                self._at_least_one(*needed, why=f" for {symbol!r} ({BLOCKS[symbol]}) in pattern")
        if "M" in self.pattern:
            self._divides("n_groups", "mamba_heads")
        if "*" in self.pattern:
            self._divides("n_kv_heads", "n_heads")
        if "E" in self.pattern:
            self._check_experts()
        if not (len(self.dt_limit) == 2 and 0 <= self.dt_limit[0] <= self.dt_limit[1]):
            raise ValueError(f"dt_limit: expected 0 <= low <= high, got {self.dt_limit}")
        if not 0 < self.dt_min <= self.dt_max:
            given = f"{self.dt_min} and {self.dt_max}"
            raise ValueError(f"dt_min, dt_max: expected 0 < dt_min <= dt_max, got {given}")

    @property
    def layers(self) -> str:
        """The symbols of the backbone's blocks."""
        return self.pattern.partition("/")[0]

    @property
    def mtp_layers(self) -> str:
        """The symbols of the block of multi-token prediction; empty without it."""
        return self.pattern.partition("/")[2].partition("/")[0]

    @property
    def mtp_depth(self) -> int:
        """How many tokens after the next one are predicted."""
        return self.pattern.count("/")

    @property
    def d_inner(self) -> int:
        """The inner width of Mamba-2."""
        return self.mamba_heads * self.mamba_head_dim

    @property
    def d_conv_channels(self) -> int:
        """The channels of Mamba-2's convolution: x, B and C."""
        return self.d_inner + 2 * self.n_groups * self.d_state

    @property
    def d_routed(self) -> int:
        """The width that routed experts read and write."""
        return self.d_model if self.d_latent is None else self.d_latent

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """A published architecture, such as "nemotron-3-nano-30b-a3b"; see `presets.PRESETS`.

        Raises:
            ValueError: there is none of that name, or a changed field does not fit.
        """
        from nemotron_blocks.presets import PRESETS

        if name not in PRESETS:
            raise ValueError(f"name: expected one of {', '.join(PRESETS)}, got {name!r}")
        return cls(**PRESETS[name] | changes)

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> Self:
        """From the config.json of a Hugging Face `nemotron_h` checkpoint.

        Raises:
            ValueError: it describes another model, or one with what this library lacks.
        """
        from nemotron_blocks.hf_config import fields_of

        return cls(**fields_of(config))

    def to_hf(self) -> dict[str, Any]:
        """The config.json of a Hugging Face `nemotron_h` checkpoint."""
        from nemotron_blocks.hf_config import config_of

        return config_of(self)

    def changed(self, **changes: Any) -> Self:
        """A config with other values in some fields."""
        return replace(self, **changes)

    def _check_pattern(self) -> None:
        main, *suffixes = self.pattern.split("/")
        bad = sorted(set(self.pattern) - set(BLOCKS) - {"/"})
        if bad:
            known = ", ".join(f"{symbol} ({name})" for symbol, name in BLOCKS.items())
            raise ValueError(f"pattern: expected symbols {known}, got {''.join(bad)!r}")
        if not main:
            raise ValueError(f"pattern: expected at least one block, got {self.pattern!r}")
        if len(set(suffixes)) > 1 or "" in suffixes:
            raise ValueError(
                f"pattern: expected suffixes of one block that is applied repeatedly, such as "
                f"'/*E/*E', got {suffixes}"
            )
        if any("M" in suffix for suffix in suffixes):
            raise ValueError(
                f"pattern: expected attention, MLP and experts in the suffix, got {suffixes[0]!r}"
            )

    def _at_least_one(self, *names: str, why: str = "") -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1{why}, got {getattr(self, name)}")

    def _divides(self, part: str, whole: str) -> None:
        if getattr(self, whole) % getattr(self, part):
            raise ValueError(
                f"{part}: expected a divisor of {whole}, {getattr(self, whole)}, got "
                f"{getattr(self, part)}"
            )

    def _check_experts(self) -> None:
        self._divides("n_group", "n_experts")
        if self.topk_group > self.n_group:
            raise ValueError(
                f"topk_group: expected at most n_group, {self.n_group}, got {self.topk_group}"
            )
        reachable = self.n_experts // self.n_group * self.topk_group
        if self.top_k > reachable:
            raise ValueError(
                f"top_k: expected at most the {reachable} experts that a token may go to, got "
                f"{self.top_k}"
            )
        if self.d_latent is not None:
            self._at_least_one("d_latent")


def check_number(name: str, value: float, highest: float = math.inf) -> float:
    """The value as a float, if it is a number from 0 to `highest`, which NaN is not.

    Raises:
        TypeError: no number.
        ValueError: naming the argument and the value.
    """
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not 0 <= value <= highest:
        bounds = "at least 0" if highest == math.inf else f"0 to {highest}"
        raise ValueError(f"{name}: expected {bounds}, got {value}")
    return float(value)


def _plain(kind: Any, name: str, config: HybridConfig) -> Any:
    """A field as Python has it, by its annotation."""
    value = getattr(config, name)
    match kind:
        case "int":
            return check_count(name, value, "as a whole number", 0)
        case "int | None":
            return None if value is None else check_count(name, value, "as a whole number", 0)
        case "float":
            return check_number(name, value)
        case "bool":
            return bool(value)
        case "tuple[float, float]":
            return tuple(check_number(name, number) for number in value)
    return value
