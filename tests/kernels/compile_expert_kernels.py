"""Compile every Triton kernel of the experts to machine code for three GPUs; needs no GPU.

Run by test_experts_triton.py in a process of its own, since a process that interprets Triton
kernels cannot compile them.
"""

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsetorch_kernels.moe import triton as kernels

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp64": torch.float64,
}
FLOATS = {"x", "w", "g", "h", "out", "g_act", "act"}
GATES = {"gate", "g_gate"}
INDICES = {"ptr", "starts"}


def constants(name: str, value: str, many: bool) -> tuple[dict, int]:
    """What is known when a kernel is compiled, as its caller chooses it, and the warps."""
    like = torch.empty(0, dtype=DTYPES[value])
    size = kernels._tile(like, 4096 if many else 1, 1)
    types = {"TERM": kernels._term_type(like), "SUM": kernels._sum_type(like)}
    if name == "_rows_kernel":
        return types | {"ROWS": size.rows, "OUT": size.width, "IN": size.depth}, size.warps
    if name == "_outer_kernel":
        return types | {"ROWS": size.depth, "LEFT": size.rows, "RIGHT": size.width}, size.warps
    if name == "_gradient_kernel":
        return {"SUM": types["SUM"], "HAS_GATE": many, "COLS": 1024}, 4
    if name == "_clear_kernel":
        return {"BLOCK": 1024}, 4
    return {"SUM": types["SUM"], "BLOCK": 1024}, 4


def compile_kernel(name: str, value: str, index: str, architecture: int, many: bool) -> int:
    """Bytes of machine code. many: groups of many rows, not of one."""
    kernel = getattr(kernels, name)
    known, warps = constants(name, value, many)
    gate = "fp64" if value == "fp64" else "fp32"
    signature = {}
    for argument in kernel.arg_names:
        if argument in known:
            signature[argument] = "constexpr"
        elif argument in FLOATS:
            signature[argument] = f"*{value}"
        elif argument in GATES:
            signature[argument] = f"*{gate}"
        elif argument in INDICES:
            signature[argument] = f"*{index}"
        elif argument.endswith("_col") and many:
            signature[argument], known[argument] = "constexpr", 1  # as Triton does with strides
        else:
            signature[argument] = index
    source = ASTSource(kernel, signature, constexprs=known)
    target = GPUTarget("cuda", architecture, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    cubin = compiled.asm["cubin"]
    assert cubin[:4] == b"\x7fELF", f"{name} gave no machine code for sm_{architecture}"
    return len(cubin)


KERNELS = (
    "_rows_kernel", "_outer_kernel", "_clear_kernel", "_activation_kernel", "_gradient_kernel"
)  # fmt: skip
VARIANTS = {
    80: (("fp32", "i32", True),),
    90: (("bf16", "i32", True), ("fp64", "i64", False)),
    100: (("bf16", "i64", False),),
}


def main() -> None:
    for architecture, variants in VARIANTS.items():
        for name in KERNELS:
            for value, index, many in variants:
                size = compile_kernel(name, value, index, architecture, many)
                print(f"sm_{architecture} {name} {value} {index} {many}: {size} bytes")


if __name__ == "__main__":
    main()
