"""Preconditioners: operators r -> z that approximate the inverse of a matrix."""

from sparsetorch.precond.jacobi import Jacobi

__all__ = ["Jacobi"]
