"""Sparse Cholesky factorization: elimination of a pattern, numeric factors, selected inverse."""
