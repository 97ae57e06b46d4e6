"""Experts of a mixture: many small squared-ReLU networks, each on rows of its own."""
