"""Hybrid Mamba-2 / attention / MoE language models. Empty in this release."""
