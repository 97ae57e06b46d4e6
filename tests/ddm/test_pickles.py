"""Decompositions, set-ups and methods go to other processes and to files."""

import copy
import io
import pickle

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from small_problems import delaunay, laplacian, random_matrix

import ddm
from ddm.coarse import partition_of_unity
from ddm.partition import decompose, partition
from ddm.schwarz import Schwarz
from ddm.setup import set_up
from sparsetorch import CSRTensor


def through_pickle(x):
    return pickle.loads(pickle.dumps(x))


def through_a_file(x):
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [through_pickle, through_a_file, copy.deepcopy])
def test_a_decomposition_that_was_used(copied):
    A = laplacian(9)
    d = decompose(A, partition(A, 4))
    matrix, r = CSRTensor.from_scipy(A), random_matrix(d.n, 2)
    z = Schwarz(matrix, d, P=partition_of_unity(d)).apply(r)
    again = copied(d)
    for name, values in vars(d).items():
        if isinstance(values, np.ndarray):
            assert np.array_equal(getattr(again, name), values), name
    assert torch.equal(Schwarz(matrix, again, P=partition_of_unity(again)).apply(r), z)
    with pytest.raises(ValueError, match="A: its pattern is not that of the matrix"):
        again.check_pattern(CSRTensor.from_scipy(sp.csr_array(np.ones((d.n, d.n)))).pattern)


@pytest.mark.parametrize("local", ["dense", "sparse"])
@pytest.mark.parametrize("copied", [through_pickle, through_a_file, copy.deepcopy])
def test_set_ups_and_methods(copied, local):
    problem = ddm.elasticity(delaunay(8))
    setup = set_up(problem, partition(problem.A, 4, block_size=2), local=local)
    fresh = copied(setup)
    method = setup.classical(0.5)
    r = random_matrix(method.shape[0], 2)
    z = method.apply(r)
    for other in (fresh, copied(setup)):
        assert torch.equal(other.classical(0.5).apply(r), z)
    for made in (method, ddm.enriched(method, 2)):
        other = copied(made)
        assert torch.equal(other.apply(r), made.apply(r))
        assert torch.equal(other.apply_transposed(r), made.apply_transposed(r))


@pytest.mark.parametrize("copied", [through_pickle, copy.deepcopy])
def test_results_of_trying(copied):
    A, b = laplacian(12), np.ones(100)
    table = ddm.compare(A, b, methods=("ras", "amg"))
    again = copied(table)
    assert again.rows == table.rows
    tuned = ddm.tune(A, b, methods=("amg",), progress=False)
    np.testing.assert_allclose(copied(tuned).solve(b), tuned.solve(b), rtol=1e-10)
    error = copied(ddm.TuningError(table))
    assert error.table.rows == table.rows
    assert str(error) == str(ddm.TuningError(table))
