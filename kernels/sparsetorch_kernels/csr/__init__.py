"""Products of CSR matrices."""
