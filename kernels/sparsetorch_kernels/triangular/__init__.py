"""Substitution with sparse triangles."""
