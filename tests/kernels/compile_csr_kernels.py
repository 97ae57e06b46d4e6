"""Compile every CSR Triton kernel to machine code for three GPU generations; needs no GPU.

Run by test_csr_triton.py in a process of its own, since a process that interprets Triton kernels
cannot compile them.
"""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sparsetorch_kernels.csr import triton as kernels

SUMS = {"fp16": tl.float32, "bf16": tl.float32, "fp32": tl.float32, "fp64": tl.float64}
CONSTANTS = {
    "_spmv_kernel": {"HAS_PERM": True, "ROWS": 64, "WIDTH": 8},
    "_spmm_kernel": {"HAS_PERM": True, "ROWS": 8, "COLUMNS": 64},
    "_sddmm_kernel": {"HAS_PERM": True, "ENTRIES": 16, "COLUMNS": 64},
    "_spgemm_kernel": {"A_PERM": True, "BT_PERM": True, "C_PERM": True, "ENTRIES": 128},
}
FLOATS = {"values", "x", "out", "u", "v", "a_values", "b_values"}
INDICES = {"crow", "col", "perm"}


def compile_kernel(name: str, value: str, index: str, architecture: int, ones: bool) -> int:
    """Bytes of machine code. `ones`: every size is 1, which Triton turns into a constant."""
    kernel, constants = getattr(kernels, name), CONSTANTS[name] | {"SUM": SUMS[value]}
    signature = {}
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in FLOATS:
            signature[argument] = f"*{value}"
        elif argument.removeprefix("a_").removeprefix("bt_").removeprefix("c_") in INDICES:
            signature[argument] = f"*{index}"
        elif ones:
            signature[argument], constants[argument] = "constexpr", 1
        else:
            signature[argument] = index  # sizes: i32 or i64, as Triton passes small or large ones
    source = ASTSource(kernel, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32))
    cubin = compiled.asm["cubin"]
    assert cubin[:4] == b"\x7fELF", f"{name} gave no machine code for sm_{architecture}"
    return len(cubin)


def main() -> None:
    for architecture in (80, 90, 100):
        for name in CONSTANTS:
            for value, index, ones in (
                ("fp32", "i32", False),
                ("fp64", "i64", False),
                ("fp32", "i32", True),
                ("bf16", "i32", False),
                ("fp16", "i64", False),
            ):
                size = compile_kernel(name, value, index, architecture, ones)
                print(f"sm_{architecture} {name} {value} {index} {'ones' * ones}: {size} bytes")


if __name__ == "__main__":
    main()
