"""Compile the Triton kernels of scan, convolution and norms for GPUs of four kinds, without one.

Run by test_ssd_triton.py in a process of its own, since a process that interprets Triton kernels
cannot compile them. Tiles and warps are those that are launched, for heads and states of
Nemotron-H 8B, and for the widest ones; the shared memory that a program asks for is checked against
the GPU's.
"""

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsetorch_kernels.norm import triton as norm
from sparsetorch_kernels.ssd import conv_triton as conv
from sparsetorch_kernels.ssd import triton as forward
from sparsetorch_kernels.ssd import triton_backward as backward
from sparsetorch_kernels.ssd import triton_states as states
from sparsetorch_kernels.ssd.triton_tiles import DOTS

# Of a block at most: A100, consumers' GPUs from Ampere on, H100, B200
SHARED_BYTES = {80: 166912, 89: 101376, 90: 232448, 100: 232448}
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FLAGS = ("HAS_SEQ", "HAS_D", "HAS_INITIAL", "READ", "FOLLOW", "BACK", "SILU", "HAS_BIAS", "GATED")
USUAL, WIDEST = (64, 128), (128, 256)  # head dim, state
CHUNK = 128


def launched(name: str, dtype: torch.dtype, architecture: int, sizes: tuple[int, int]):
    """The compile-time constants of a kernel, and the warps of a program."""
    if name.startswith("conv"):
        return {"TAPS": 4, "ROWS": conv.ROWS, "COLUMNS": conv.COLUMNS, "SUM": tl.float32}, 4
    if name.startswith("norm"):
        return {"EPS": 1e-5, "BLOCK": 1024, "SUM": tl.float32}, 4
    head_dim, state = sizes
    if name == "outputs_kernel":
        tiles = forward.tiles_for(dtype, architecture // 10)
        blocks = {"SIZE": tiles.chunk, "BLOCK_Q": tiles.chunk, "BLOCK_P": min(head_dim, tiles.p)}
        return blocks | {"BLOCK_N": state, "STAGES": tiles.stages}, tiles.warps
    if name == "states_kernel":
        tiles = states.state_tiles(dtype, CHUNK, head_dim, state)
        blocks = {"SIZE": CHUNK, "BLOCK_Q": tiles.q, "BLOCK_P": tiles.p, "BLOCK_N": state}
        return blocks | {"STAGES": tiles.stages}, 4
    if name in ("sums_kernel", "grad_decay_kernel"):
        return {"SIZE": CHUNK, "BLOCK_Q": CHUNK, "BLOCK_H": 16, "BLOCK_J": 32}, 4
    blocks = backward.blocks_for(dtype, CHUNK, head_dim, state)
    warps = blocks.warps if name == "inputs_kernel" else 4
    return dict(zip(("BLOCK_Q", "BLOCK_P", "BLOCK_N"), blocks)) | {"SIZE": CHUNK}, warps


IN_DTYPE = (  # as x
    "x", "z", "acted", "B", "C", "D", "v", "w", "g", "y", "grad_x", "grad_z", "other", "grads",
    "states",
)  # fmt: skip
IN_FLOAT32 = (
    "dt", "A", "sums", "scores", "out", "initial", "first", "added", "kept", "last", "inner",
    "dots", "grad_scores", "grad_dt", "grad_A", "weight", "bias", "grad_weight", "grad_bias",
    "parts",
)  # fmt: skip
# The other sizes are multiples of 16, and said to be.
ODD = (*states.RUN_TIME, "groups", "kept_blocks")
KERNELS = {
    name: kernel
    for module in (states, forward, backward, conv, norm)
    for name, kernel in vars(module).items()
    if name.endswith("_kernel")
}


def compile_kernel(
    name: str, value: str, index: str, architecture: int, flags: bool, sizes: tuple[int, int]
) -> str:
    """What it takes, in words."""
    kernel = KERNELS[name]
    constants, warps = launched(name, TYPES[value], architecture, sizes)
    constants |= dict.fromkeys(FLAGS, flags) | DOTS[TYPES[value]]
    signature, used, aligned = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], used[argument] = "constexpr", constants[argument]
        elif argument in IN_DTYPE or (name, argument) == ("states_kernel", "out"):
            signature[argument] = f"*{value}"
        elif argument in IN_FLOAT32:
            signature[argument] = "*fp32"
        elif argument == "seq":
            signature[argument] = f"*{index}"
        else:
            signature[argument] = "i32"
        if signature[argument] != "constexpr" and argument not in ODD:
            aligned[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs=used, attrs=aligned)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    cubin, shared = compiled.asm["cubin"], compiled.metadata.shared
    assert cubin[:4] == b"\x7fELF", f"{name} gave no machine code for sm_{architecture}"
    assert shared <= SHARED_BYTES[architecture], f"{name} needs {shared} bytes of shared memory"
    return f"{len(cubin)} bytes, {shared} bytes of shared memory"


def main() -> None:
    assert tl.bfloat16 in DOTS[torch.bfloat16].values()
    of_widths = [name for name in KERNELS if "BLOCK_P" in KERNELS[name].arg_names]
    for architecture, value, index, flags, sizes, names in (
        (80, "fp16", "i32", False, USUAL, KERNELS),
        (90, "bf16", "i32", True, USUAL, KERNELS),
        (100, "bf16", "i64", False, USUAL, KERNELS),
        (89, "bf16", "i32", True, WIDEST, of_widths),
        (89, "fp32", "i32", True, WIDEST, of_widths),
    ):
        for name in names:
            taken = compile_kernel(name, value, index, architecture, flags, sizes)
            print(f"sm_{architecture} {name} {value} {index}: {taken}", flush=True)


if __name__ == "__main__":
    main()
