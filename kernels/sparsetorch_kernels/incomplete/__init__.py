"""Incomplete factorizations on the pattern of the matrix."""

from sparsetorch_kernels.incomplete.backend import ic0, ilu0
from sparsetorch_kernels.incomplete.reference import Elimination, PivotError, factorize

__all__ = ["Elimination", "PivotError", "factorize", "ic0", "ilu0"]
