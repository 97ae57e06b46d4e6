"""A classical method as a few numbers: its name tells it from others, and what it refuses."""

import math
from dataclasses import fields, replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from small_problems import delaunay, laplacian

import ddm
from ddm.classical import Classical, complex_ras
from ddm.coarse import constants, nicolaides, smooth
from ddm.partition import partition
from ddm.promise import FIRST
from ddm.workbench import Workbench

OTHERS: dict[str, Any] = {
    "theta": 0.4,
    "between": True,
    "overlap": 2,
    "subdomain": 70,
    "vectors": "linear",
    "smoothing": 3,
    "form": "additive",
    "levels": "balanced",
    "single": True,
    "enrich": 4,
}


def test_the_name_tells_methods_apart():
    start = Classical(theta=0.5)
    assert set(OTHERS) == {field.name for field in fields(Classical)}
    changed = [replace(start, **{name: value}) for name, value in OTHERS.items()]
    for one, other in combinations([start, *changed, *FIRST], 2):
        assert str(one) != str(other)


def test_the_name_says_what_is_not_the_default():
    assert str(Classical()) == "overlap 1, smoothing 1"
    assert str(FIRST[4]) == (
        "additive form, balanced levels, overlap 1, smoothing 1, 64 unknowns a subdomain"
    )


def test_without_its_weight_the_way_to_set_it_makes_no_difference():
    assert str(Classical(between=True)) == str(Classical())
    bench = Workbench(ddm.poisson(delaunay(9)), subdomain=20)
    assert Classical(between=True)(bench).interface is None


@pytest.mark.parametrize("theta", [-3.0, math.nan, math.inf, -0.5 + 1j])
@pytest.mark.parametrize("between", [False, True])
def test_weights_that_are_none_are_refused(theta, between):
    with pytest.raises(ValueError, match="theta: expected a weight of at least 0, got"):
        Classical(theta=theta, between=between)


def test_steps_that_are_none_are_refused():
    bench = Workbench(ddm.poisson(delaunay(9)), subdomain=20)
    for steps in (-1, 0.5, math.nan):
        with pytest.raises(ValueError, match="smoothing: expected at least 0 Jacobi steps, got"):
            Classical(smoothing=steps)(bench)  # type: ignore


def test_complex_ras_has_the_coarse_space_of_a_real_matrix():
    A = laplacian(12)
    owner = partition(A, 5)
    real, turned = (complex_ras(ddm.from_matrix(f * A), owner) for f in (1.0, 1j))
    assert real.P is not None
    assert turned.P is not None
    d = real.decomposition
    expected = smooth(nicolaides(d, constants(d.n)), real.A).to_dense()
    torch.testing.assert_close(real.P.to_dense(), expected)
    torch.testing.assert_close(turned.P.to_dense(), expected.to(torch.complex128))
    with_positions = ddm.from_matrix(A, coordinates=np.random.default_rng(0).random((d.n, 2)))
    linear = complex_ras(with_positions, owner)
    assert linear.P is not None
    assert linear.P.shape[1] == 3 * d.n_subdomains
    plain = complex_ras(with_positions, owner, linear=False)
    assert plain.P is not None
    torch.testing.assert_close(plain.P.to_dense(), expected)
