"""What a model weighs and costs, from its config alone: nothing is allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nemotron_blocks.config import BLOCKS, HybridConfig


@dataclass(frozen=True)
class Part:
    """One kind of block, or what is around the blocks.

    Attributes:
        name: of the kind.
        count: how many.
        parameters: of one.
        active: parameters of one but those of experts that a token does not go to.
        flops: of one for a token, forward, at the plan's context.
        cache: bytes of one that generating keeps for a sequence of the plan's context.
    """

    name: str
    count: int
    parameters: int
    active: int
    flops: float
    cache: float


@dataclass(frozen=True)
class Plan:
    """Parameters, operations and memory of a model; `str` is a table.

    Attributes:
        config: of the model.
        context: tokens of a sequence.
        batch: sequences.
        parts: backbone first, then multi-token prediction.
        weight_bytes: of one weight in memory.
    """

    config: HybridConfig
    context: int
    batch: int
    parts: tuple[Part, ...]
    ahead: tuple[Part, ...]
    weight_bytes: int

    @property
    def parameters(self) -> int:
        """Of the model without multi-token prediction, as models are named."""
        return sum(part.count * part.parameters for part in self.parts)

    @property
    def active(self) -> int:
        """Of these, all but the experts that a token does not go to, as models are named."""
        return sum(part.count * part.active for part in self.parts)

    @property
    def mtp_parameters(self) -> int:
        """Of multi-token prediction."""
        return sum(part.count * part.parameters for part in self.ahead)

    @property
    def flops(self) -> float:
        """Forward for one token at the context's mean length; training takes three times that."""
        return sum(part.count * part.flops for part in self.parts)

    @property
    def weights(self) -> int:
        """Bytes of all weights, multi-token prediction included."""
        return (self.parameters + self.mtp_parameters) * self.weight_bytes

    @property
    def kv_cache(self) -> int:
        """Bytes of keys and values of the batch at the full context, speculation's included."""
        return self._cache("*")

    @property
    def state_cache(self) -> int:
        """Bytes of the states of Mamba-2 for the whole batch, at any context."""
        return self._cache("M")

    def _cache(self, symbol: str) -> int:
        return round(
            self.batch
            * sum(p.count * p.cache for p in (*self.parts, *self.ahead) if p.name == BLOCKS[symbol])
        )

    def __str__(self) -> str:
        rows = [("", "blocks", "parameters", "active", "GFLOP a token", "cache, MB a sequence")]
        named = [(part.name, part) for part in self.parts]
        named += [(f"ahead: {part.name}", part) for part in self.ahead]
        for name, part in named:
            rows.append(
                (
                    name,
                    str(part.count),
                    f"{part.count * part.parameters:,}",
                    f"{part.count * part.active:,}",
                    f"{part.count * part.flops / 1e9:.3f}",
                    f"{part.count * part.cache / 1e6:.2f}",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths)) for row in rows]
        total = f"{self.parameters / 1e9:.2f}B parameters, {self.active / 1e9:.2f}B active"
        if self.mtp_parameters:
            total += f", and {self.mtp_parameters / 1e9:.2f}B that predict tokens ahead"
        memory = (
            f"weights {_size(self.weights)}; at {self.context:,} tokens and batch {self.batch}: "
            f"keys and values {_size(self.kv_cache)}, states {_size(self.state_cache)}"
        )
        return "\n".join((*lines, total, memory))


def plan(
    config: HybridConfig,
    context: int = 8192,
    batch: int = 1,
    weight_bytes: int = 2,
    cache_bytes: int = 2,
) -> Plan:
    """What a model weighs, and what a token costs.

    Operations are two for each weight that a token meets, the embedding's and those of the norms
    around mixers aside; and, in attention, 4 n_heads head_dim for each token that is attended to;
    in Mamba-2's scan, for chunks of Q tokens, Q (n_groups d_state + d_inner) inside the chunk, half
    of which is masked, and 4 d_inner d_state for the states.

    Args:
        config: of the model.
        context: tokens of a sequence; attention's operations are those of its mean length.
        batch: sequences.
        weight_bytes: of a weight: 2 for bfloat16.
        cache_bytes: of keys, values and what the convolution keeps; the state itself is float32.

    Raises:
        ValueError: a number is below one.
    """
    sizes = {"context": context, "batch": batch, "weight_bytes": weight_bytes}
    for name, value in (*sizes.items(), ("cache_bytes", cache_bytes)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    parts = [
        _part(config, symbol, config.layers.count(symbol), context, cache_bytes)
        for symbol in BLOCKS
        if symbol in config.layers
    ]
    d, v = config.d_model, config.vocab_size
    output = 0 if config.tie_embeddings else v * d
    parts += [
        Part("embedding", 1, v * d, v * d, 0.0, 0.0),
        Part("norm and output", 1, d + output, d + v * d, 2.0 * v * d, 0.0),
    ]
    ahead = []
    if config.mtp_depth:
        ahead = [
            _part(config, symbol, config.mtp_layers.count(symbol), context, cache_bytes)
            for symbol in BLOCKS
            if symbol in config.mtp_layers
        ]
        size = 2 * d * d + 3 * d
        ahead.append(Part("norms and projection", 1, size, size, 2.0 * 2 * d * d, 0.0))
    return Plan(config, context, batch, tuple(parts), tuple(ahead), weight_bytes)


def _part(config: HybridConfig, symbol: str, count: int, context: int, cache_bytes: int) -> Part:
    sizes = {"M": _mamba, "*": _attention, "-": _mlp, "E": _moe}[symbol]
    parameters, active, extra, cache = sizes(config, context, cache_bytes)
    norm = config.d_model
    return Part(
        BLOCKS[symbol],
        count,
        parameters + norm,
        active + norm,
        2.0 * active + extra,
        cache,
    )


Sizes = tuple[int, int, float, float]  # parameters, active ones, more operations, bytes of cache


def _mamba(c: HybridConfig, context: int, cache_bytes: int) -> Sizes:
    d, inner, channels, heads = c.d_model, c.d_inner, c.d_conv_channels, c.mamba_heads
    projections = d * (inner + channels + heads) + inner * d
    parameters = projections + (c.d_conv + 1) * channels + 3 * heads + inner
    q, n = min(c.chunk_size, context), c.d_state
    scan = q * n * c.n_groups + q * inner + 4 * inner * n  # half of a chunk's square is masked
    state = 4 * inner * n + cache_bytes * (c.d_conv - 1) * channels
    return parameters, parameters, scan, state


def _attention(c: HybridConfig, context: int, cache_bytes: int) -> Sizes:
    queries, keys = c.n_heads * c.head_dim, c.n_kv_heads * c.head_dim
    parameters = c.d_model * (2 * queries + 2 * keys)
    scores = 4.0 * queries * (context + 1) / 2  # the mean of the lengths up to the context
    return parameters, parameters, scores, 2.0 * cache_bytes * keys * context


def _mlp(c: HybridConfig, context: int, cache_bytes: int) -> Sizes:
    parameters = 2 * c.d_model * c.d_ff
    return parameters, parameters, 0.0, 0.0


def _moe(c: HybridConfig, context: int, cache_bytes: int) -> Sizes:
    expert = 2 * c.d_routed * c.d_expert
    around = 2 * c.d_model * c.d_shared + c.n_experts * c.d_model
    if c.d_latent is not None:
        around += 2 * c.d_model * c.d_latent
    return c.n_experts * expert + around, c.top_k * expert + around, 0.0, 0.0


def _size(count: float) -> str:
    unit = min(int(math.log10(max(count, 1))) // 3, 4)
    return f"{count / 1000**unit:.3g} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
