"""The state-space duality scan of Mamba-2, and the causal convolution before it."""
