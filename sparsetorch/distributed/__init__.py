"""Matrices split by blocks of rows over the processes of a `torch.distributed` group.

Imported on its own: `import sparsetorch.distributed`. Every process calls the same functions in the
same order, as with all collectives; it holds a block of the rows of each matrix and the same block
of each vector. Gradients: a loss may be a number that all processes compute alike (with `dot`,
`norm` or `total`), or the sum of losses that each computes for itself; each then calls `backward`
on what it has.
"""

from sparsetorch.distributed.cg import cg
from sparsetorch.distributed.matrix import DistributedCSR
from sparsetorch.distributed.reductions import dot, norm, shared, total
from sparsetorch.distributed.solve import solve

__all__ = ["DistributedCSR", "cg", "dot", "norm", "shared", "solve", "total"]
