"""Schwarz methods and the training of their networks on a GPU, against the CPU."""

import copy
import warnings
from functools import partial

import lightning as L
import pytest
import torch
from small_problems import delaunay, random_matrix
from test_lightning import MESHES, QUIET, module
from test_published import small
from test_schwarz import A, arbitrary

from ddm.coarse import partition_of_unity, smooth
from ddm.enrichment import enriched
from ddm.lightning import MeshDataModule
from ddm.partition import decompose, partition
from ddm.problems import convection_diffusion, elasticity, helmholtz, poisson
from ddm.published.counts import stationary_iterations
from ddm.published.weights import make_network
from ddm.schwarz import Schwarz
from sparsetorch import CSRTensor
from sparsetorch.linalg import solve

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: Schwarz methods are NOT tested on one"
)

FORMS = (
    ("restricted", "multiplicative"),
    ("restricted", "adef1"),
    ("symmetric", "symmetric"),
    ("symmetric", "balanced"),
    ("additive", "additive"),
)
PROBLEMS = {
    "poisson": poisson,
    "elasticity": elasticity,
    "convection": convection_diffusion,
    "helmholtz": partial(helmholtz, wavenumber=5.0),
}


@pytest.mark.parametrize(("form", "levels"), FORMS)
def test_operators_and_derivatives_are_those_of_the_cpu(form, levels):
    found = []
    for device in ("cpu", "cuda"):
        matrix = CSRTensor.from_scipy(A).to(device)
        d = decompose(A, partition(A, 5), 2)
        interface = (0.1 * arbitrary(d)).to(device).requires_grad_()
        P = smooth(partition_of_unity(d).to(device), matrix)
        values = P.values.detach().requires_grad_()
        damping = 0.4 if levels == "symmetric" else None
        method = Schwarz(
            matrix, d, interface=interface, P=P.with_values(values), form=form, levels=levels,
            local="dense", coarse="dense", damping=damping,
        )  # fmt: skip
        r = random_matrix(len(A.indptr) - 1, 3).to(device)
        results = [method.apply(r), method.apply_transposed(r), method.propagate(r[:, 0])]
        torch.cat([y.flatten() for y in results]).pow(2).sum().backward()
        found.append([*(y.detach() for y in results), interface.grad, values.grad])
    for here, there in zip(*found):
        torch.testing.assert_close(there.cpu(), here, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", PROBLEMS)
def test_solves_of_problems(name):
    problem = PROBLEMS[name](delaunay(14))
    d = decompose(problem.A, partition(problem.A, 6, block_size=problem.block_size))
    xs = []
    for device in ("cpu", "cuda"):
        matrix = CSRTensor.from_scipy(problem.A).to(device)
        P = partition_of_unity(d, matrix.dtype).to(device)
        method = Schwarz(matrix, d, P=P, local="dense")
        b = torch.from_numpy(problem.b).to(device, matrix.dtype)
        xs.append(solve(matrix, b, method="gmres", preconditioner=method, rtol=1e-11))
        assert (matrix @ xs[-1] - b).norm() <= 1e-10 * b.norm()
    torch.testing.assert_close(xs[1].cpu(), xs[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("form", ["restricted", "additive"])
def test_slow_errors_are_those_of_the_cpu(form):
    found = []
    for device in ("cpu", "cuda"):
        matrix = CSRTensor.from_scipy(A).to(device)
        d = decompose(A, partition(A, 5), 1)
        P = smooth(partition_of_unity(d).to(device), matrix)
        levels = "multiplicative" if form == "restricted" else "balanced"
        method = enriched(Schwarz(matrix, d, P=P, form=form, levels=levels), 2)
        assert method.P is not None
        assert method.P.device.type == device
        found.append(method.apply(random_matrix(d.n, 3).to(device)).cpu())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


def test_float32_factors_of_a_float64_method():
    d = decompose(A, partition(A, 5))
    matrix = CSRTensor.from_scipy(A).to("cuda")
    P = partition_of_unity(d).to("cuda")
    r = random_matrix(len(A.indptr) - 1, 2).cuda()
    exact = Schwarz(matrix, d, P=P).apply(r)
    got = Schwarz(matrix, d, P=P, factor_dtype=torch.float32).apply(r)
    assert got.dtype == torch.float64
    assert (got - exact).norm() < 1e-5 * exact.norm()


def test_training_lowers_the_loss_as_on_the_cpu(tmp_path):
    files = tuple(map(str, MESHES[:2]))
    data = MeshDataModule(str(tmp_path / "meshes"), 2, subdomain=(30, 60), val_count=1, files=files)
    data.prepare_data()
    setups = list(data.train_dataloader())

    def loss(weights) -> float:
        net = module()  # which knows no slow errors yet
        net.load_state_dict(weights)
        torch.manual_seed(1)
        with torch.no_grad():
            return sum(float(net.loss(setup)) for setup in setups)

    losses = [loss(module().state_dict())]
    for accelerator in ("cpu", "cuda"):
        net = module(lr=1e-2)
        trainer = L.Trainer(
            default_root_dir=tmp_path, max_steps=40, enable_checkpointing=False,
            **QUIET | {"accelerator": accelerator, "devices": 1},
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(net, datamodule=data)
        losses.append(loss(net.state_dict()))
    assert losses[1] < losses[0] - 1
    assert losses[2] < losses[0] - 1


@pytest.mark.parametrize("name", ["mggnn", "graph_unet"])
def test_published_losses_and_gradients(name):
    here = small(10, 6)
    torch.manual_seed(0)
    net = make_network(name, width=8, layers=2)
    found = []
    for setup, network in ((here, net), (here.to("cuda"), copy.deepcopy(net).cuda())):
        method = setup.learned(network)
        e = random_matrix(method.shape[0], 2).to(setup.A.device, setup.A.dtype)
        error = method.propagate(method.propagate(e))
        error.pow(2).sum().backward()
        found.append([error.detach(), *(p.grad for p in network.parameters())])
        assert stationary_iterations(method)
    for a, b in zip(*found):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(b.cpu(), a, rtol=1e-3, atol=1e-4)
