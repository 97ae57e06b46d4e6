"""Norms of root mean square, plain and gated in groups."""
