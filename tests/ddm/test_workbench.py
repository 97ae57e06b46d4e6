"""What a workbench makes of a problem that was put together by hand."""

from dataclasses import replace

import numpy as np
from manufactured import square

from ddm import elasticity
from ddm.coarse import constants
from ddm.workbench import Workbench


def test_without_a_near_null_space_each_component_has_its_constant():
    problem = replace(
        elasticity(square(8), source=(0.0, 1.0), dirichlet={"left": 0.0}), near_nullspace=None
    )
    bench = Workbench(problem, subdomain=20)
    n = len(problem.b)
    assert np.array_equal(bench.near_nullspace, constants(n, 2))
    P = bench.prolongation(20, 1, smoothing=0)
    assert P.shape[1] == 2 * bench.decomposition(20, 1).n_subdomains
