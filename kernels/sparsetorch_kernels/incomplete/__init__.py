"""Incomplete factorizations on the pattern of the matrix."""
