"""Products of numbers that PyTorch negates lazily: one number is contiguous without a copy.

`test_csr_triton.py` starts this file again with TRITON_INTERPRET=1.
"""

import torch
from csr_cases import SMALL, layout_of, relative_error
from test_csr_products import TOLERANCE, each_implementation, implementation

from sparsetorch_kernels import sddmm, spgemm, spmm

__all__ = ["implementation"]  # pytest finds the fixture by its name


@each_implementation
def test_the_imaginary_part_of_a_conjugate(dtype, index):
    a = layout_of(SMALL["1x1"], index)
    if dtype.is_complex:
        values = torch.randn(1, dtype=dtype).conj()
    else:
        wide = torch.complex128 if dtype == torch.float64 else torch.complex64
        values = torch.randn(1, dtype=wide).conj().imag.to(dtype)
    x = torch.randn(1, 2, dtype=dtype)
    number = values.resolve_conj().resolve_neg() + 0
    for got, want in (
        (spmm(a, values, x), number * x),
        (sddmm(a, values[None], x[:, :1]), number * x[0, :1]),
        (spgemm(a, values, a, values, a), number**2),
    ):
        assert relative_error(got, want) <= TOLERANCE[dtype]
