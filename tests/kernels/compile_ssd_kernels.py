"""Compile the Triton kernels of scan, convolution and norms for three GPU generations, without one.

Run by test_ssd_triton.py in a process of its own, since a process that interprets Triton kernels
cannot compile them. The sizes for sm_90 are those of Nemotron-H 8B; for the others smaller ones,
which take less time. The shared memory that a program asks for is checked against the GPU's.
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

SHARED_BYTES = {80: 166912, 90: 232448, 100: 232448}  # of a block at most
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
FLAGS = ("HAS_SEQ", "HAS_D", "HAS_INITIAL", "READ", "FOLLOW", "BACK", "SILU", "HAS_BIAS", "GATED")
BLOCKS = {"SIZE": 128, "BLOCK_Q": 64, "BLOCK_P": 64, "BLOCK_N": 64, "BLOCK_J": 32}
STAGES = {"STAGES": 2, "BLOCK_N": 128}
NORM = {"EPS": 1e-5, "BLOCK": 1024, "SUM": tl.float32}
CONV = {"TAPS": 4, "ROWS": conv.ROWS, "COLUMNS": conv.COLUMNS, "SUM": tl.float32}
SPECIAL = {  # what differs from the above
    "conv_kernel": CONV,
    "conv_acted_kernel": CONV,
    "conv_spread_kernel": CONV,
    "norm_kernel": NORM,
    "norm_backward_kernel": NORM,
    "outputs_kernel": STAGES | {"SIZE": 64},
    "states_kernel": STAGES | {"BLOCK_Q": 128},
    "sums_kernel": {"BLOCK_Q": 128, "BLOCK_H": 16},
    "grad_decay_kernel": {"BLOCK_Q": 128},
}
IN_DTYPE = (  # as x
    "x", "z", "acted", "B", "C", "D", "v", "w", "g", "y", "grad_x", "grad_z", "other", "grads",
    "states",
)  # fmt: skip
IN_FLOAT32 = (
    "dt", "A", "sums", "scores", "out", "initial", "first", "added", "kept", "last", "inner",
    "dots", "grad_scores", "grad_dt", "grad_A", "weight", "bias", "grad_weight", "grad_bias",
    "parts",
)  # fmt: skip
# The other sizes are multiples of 16.
ODD = ("batch", "chunks", "segments", "stride", "groups", "n_parts", "kept_blocks")
KERNELS = {
    name: kernel
    for module in (states, forward, backward, conv, norm)
    for name, kernel in vars(module).items()
    if name.endswith("_kernel")
}


def compile_kernel(name: str, value: str, index: str, architecture: int, flags: bool) -> str:
    """Its sizes, in words."""
    kernel = KERNELS[name]
    constants = BLOCKS | SPECIAL.get(name, {}) | dict.fromkeys(FLAGS, flags)
    constants |= DOTS[TYPES[value]]
    if architecture != 90:
        constants |= dict.fromkeys(("BLOCK_Q", "BLOCK_P", "BLOCK_N", "BLOCK_J", "COLUMNS"), 16)
    signature, used, aligned = {}, {}, {}
    for place, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], used[argument] = "constexpr", constants[argument]
        elif argument in IN_DTYPE:
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
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    cubin, shared = compiled.asm["cubin"], compiled.metadata.shared
    assert cubin[:4] == b"\x7fELF", f"{name} gave no machine code for sm_{architecture}"
    assert shared <= SHARED_BYTES[architecture], f"{name} needs {shared} bytes of shared memory"
    return f"{len(cubin)} bytes, {shared} bytes of shared memory"


def main() -> None:
    assert tl.bfloat16 in DOTS[torch.bfloat16].values()
    for architecture, value, index, flags in (
        (80, "fp16", "i32", False),
        (90, "bf16", "i32", True),
        (100, "bf16", "i64", False),
    ):
        for name in KERNELS:
            sizes = compile_kernel(name, value, index, architecture, flags)
            print(f"sm_{architecture} {name} {value} {index}: {sizes}", flush=True)


if __name__ == "__main__":
    main()
