"""What the Triton kernels of the scan share: tiles in memory, products, and decays.

Products of bfloat16 matrices are made in bfloat16, of float16 matrices in TF32, which has their
precision and the range of float32, and of float32 matrices in float32; all are added up in float32.

Import this module only where Triton is installed. With `TRITON_INTERPRET=1` in the environment
before the first import of Triton, the kernels run on CPU tensors, which is how they are tested
without a GPU.
"""

# Triton's parameters and tensors are not what their annotations say.
# pyright: reportArgumentType=false
import os
from typing import Any

import torch
import triton
import triton.language as tl

# Triton's interpreter multiplies the bits of bfloat16.
_MULTIPLIED = tl.float32 if os.environ.get("TRITON_INTERPRET") == "1" else tl.bfloat16
DOTS: dict[torch.dtype, dict[str, Any]] = {
    torch.bfloat16: {"ROUND": tl.bfloat16, "DOT": _MULTIPLIED, "PRECISION": "ieee"},
    torch.float16: {"ROUND": tl.float32, "DOT": tl.float32, "PRECISION": "tf32"},
    torch.float32: {"ROUND": tl.float32, "DOT": tl.float32, "PRECISION": "ieee"},
}


@triton.jit
def load_tile(pointer, row, rows, row_step, column, columns):
    """The elements [row, column] of a matrix of rows x columns, 0 outside."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(pointer + row[:, None] * row_step + column[None, :], mask=inside, other=0.0)


@triton.jit
def store_tile(pointer, value, row, rows, row_step, column, columns):
    """Write the elements [row, column] of a matrix of rows x columns."""
    inside = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(pointer + row[:, None] * row_step + column[None, :], value, mask=inside)


@triton.jit
def dot(a, b, ROUND: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr):
    """a b, of operands rounded to ROUND and multiplied as DOT, added up in float32."""
    return tl.dot(a.to(ROUND).to(DOT), b.to(ROUND).to(DOT), input_precision=PRECISION)


@triton.jit
def carry(s_q, seq, q, size, start, HAS_SEQ: tl.constexpr):
    """exp(s_q) where the document of q began before the chunk, else 0. seq: of the chunk."""
    kept = tl.exp(s_q)
    if HAS_SEQ:
        earlier = tl.load(seq - tl.where(start > 0, 1, 0))
        same = tl.load(seq + q, mask=q < size, other=0) == earlier
        kept = tl.where(same, kept, 0.0)
    return tl.where(q < size, kept, 0.0)


@triton.jit
def to_end(s_q, s_e, seq, q, size, HAS_SEQ: tl.constexpr):
    """exp(s_e - s_q) where q is in the document of the chunk's last position e, else 0."""
    kept = tl.exp(s_e - s_q)
    if HAS_SEQ:
        same = tl.load(seq + q, mask=q < size, other=0) == tl.load(seq + size - 1)
        kept = tl.where(same, kept, 0.0)
    return tl.where(q < size, kept, 0.0)


@triton.jit
def decay(s, seq, q, k, size, STRICT: tl.constexpr, HAS_SEQ: tl.constexpr):
    """exp(s_q - s_k) for k < q, or k <= q, in one document, else 0; s: the chunk's sums."""
    s_q = tl.load(s + q, mask=q < size, other=0.0)
    s_k = tl.load(s + k, mask=k < size, other=0.0)
    both = (q[:, None] > k[None, :]) if STRICT else (q[:, None] >= k[None, :])
    both = both & (q < size)[:, None]
    if HAS_SEQ:
        seq_q = tl.load(seq + q, mask=q < size, other=0)
        seq_k = tl.load(seq + k, mask=k < size, other=0)
        both = both & (seq_q[:, None] == seq_k[None, :])
    # Masked before exp, which would overflow above the diagonal
    return tl.exp(tl.where(both, s_q[:, None] - s_k[None, :], float("-inf")))
