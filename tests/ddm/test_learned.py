"""MG-GNN's outputs: where they start, their bounds, what renumbering does, and the checkpoint."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from small_problems import delaunay, laplacian, small_setup

import ddm
from ddm.learned import InterfaceNet
from ddm.mesh import distort
from ddm.partition import partition
from ddm.problems import poisson, random_problem
from ddm.setup import Setup, set_up


def network(seed: int = 0, size: float = 1.0) -> InterfaceNet:
    """A network whose last layer is not zero."""
    torch.manual_seed(seed)
    net = InterfaceNet(width=8, layers=2)
    torch.nn.init.normal_(list(net.head.parameters())[-2], std=size)
    return net.double()


def outputs(net: InterfaceNet, setup: Setup) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's outputs in double precision."""
    inputs = setup.inputs
    graph = inputs.graph
    names = ("fine_nodes", "coarse_nodes", "fine_edges", "coarse_edges", "cross_edges")
    for name in names:
        object.__setattr__(graph, name, getattr(graph, name).double())
    return net(inputs)


def local_matrices(setup: Setup, theta: torch.Tensor) -> list[torch.Tensor]:
    """The local matrices of a method with these Robin weights, dense."""
    interface = setup.with_values(theta, torch.zeros_like(theta)).interface
    assert interface is not None
    d = setup.decomposition
    values = setup.A.values[torch.as_tensor(d.block_source)]
    values = values.index_add(0, torch.as_tensor(d.interface), interface.detach())
    full = torch.zeros(len(d.node), len(d.node), dtype=values.dtype)
    full[torch.as_tensor(d.block_row), torch.as_tensor(d.block_col)] = values
    members = [torch.as_tensor((d.subdomain == k).nonzero()[0]) for k in range(d.n_subdomains)]
    return [full[m][:, m] for m in members]


def any_theta(setup: Setup) -> torch.Tensor:
    """Robin weights from the least to the largest that a network can give."""
    raw = 3 * torch.randn(2, len(setup.inputs.local), generator=torch.Generator().manual_seed(0))
    theta, _ = network().bounded(setup.inputs, *raw.double())
    assert theta.min() < 0.07
    assert theta.max() > 3
    return theta


def test_untrained_it_is_the_classical_method():
    setup = small_setup(14, 6)
    theta, shift = InterfaceNet(width=8, layers=1, theta=0.4)(setup.inputs)
    torch.testing.assert_close(theta, torch.full_like(theta, 0.4))
    assert torch.equal(shift, torch.zeros_like(shift))


@pytest.mark.parametrize("overlap", [1, 2])
@pytest.mark.parametrize("kind", ["poisson", "anisotropic", "elasticity", "diffusion_3d"])
def test_local_matrices_are_symmetric_positive_definite_whatever_the_weights(kind, overlap):
    problem = random_problem(kind, 3, 250)
    owner = partition(problem.A, 6, block_size=problem.block_size)
    setup = set_up(problem, owner, overlap=overlap, local="dense")
    theta = any_theta(setup)
    for matrix in local_matrices(setup, theta):
        torch.testing.assert_close(matrix, matrix.T)
        assert torch.linalg.eigvalsh(matrix)[0] > 0


@pytest.mark.parametrize("seed", range(3))
def test_dominant_rows_stay_dominant_without_elements(seed):
    """Obtuse triangles couple with the wrong sign; the Robin condition alone would overdo it."""
    mesh = distort(delaunay(14, seed), 0.4, 2.5, seed)
    A = poisson(mesh).A
    setup = set_up(A, partition(A, 6), local="dense")
    theta = any_theta(setup)

    def excess(matrices) -> torch.Tensor:
        return torch.cat([2 * m.diagonal() - m.abs().sum(1) for m in matrices])

    dominant = excess(local_matrices(setup, torch.ones_like(theta))) > 1e-6
    assert (excess(local_matrices(setup, theta))[dominant] > 0).all()


def test_near_null_vectors_stay_in_the_coarse_space_away_from_the_boundary():
    """Also after smoothing, whatever the network says: a node further away for each step."""
    for linear in (False, True):
        problem = poisson(delaunay(40))
        A = problem.A
        setup = set_up(problem, partition(A, 50), linear=linear, smoothing=1, local="dense")
        theta, shift = outputs(network(), setup)
        assert shift.abs().max() > 0.05
        P = setup.with_values(theta.detach(), shift.detach()).P
        assert P is not None
        held = setup.inputs.held[:, 0] > 0
        inside = held.numpy() & (abs(A) @ ~held.numpy() == 0)
        assert inside.sum() > 50
        x = problem.coordinates
        vectors = np.column_stack([np.ones(len(x)), *(x.T if linear else ())])
        rows = P.to_dense().numpy()[inside]
        found = np.linalg.lstsq(rows, vectors[inside])[0]
        np.testing.assert_allclose(rows @ found, vectors[inside], atol=1e-6)  # c is float32


def test_renumbering_the_unknowns_and_the_subdomains_renumbers_the_outputs():
    A = laplacian(12)
    owner = partition(A, 5)
    rng = np.random.default_rng(0)
    p, q = rng.permutation(A.shape[0]), rng.permutation(owner.max() + 1)
    first = set_up(A, owner, local="dense")
    second = set_up(A[p][:, p], q[owner[p]], local="dense")
    net = network()
    here, there = outputs(net, first), outputs(net, second)

    def by_nodes(setup, values, nodes, parts):
        d = setup.decomposition
        return dict(zip(zip(parts[d.subdomain], nodes[d.node]), values.tolist()))

    for one, two in zip(here, there):
        a = by_nodes(first, one, np.arange(len(p)), q)
        b = by_nodes(second, two, p, np.arange(len(q)))
        assert a.keys() == b.keys()
        np.testing.assert_allclose([a[k] for k in a], [b[k] for k in a], atol=1e-9)


def test_outputs_do_not_depend_on_the_units_of_the_matrix():
    A = laplacian(12)
    owner = partition(A, 5)
    one, two = (outputs(network(), set_up(c * A, owner, local="dense")) for c in (1.0, 1e6))
    torch.testing.assert_close(one[0], two[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(one[1], two[1], rtol=1e-4, atol=1e-5)


def test_every_parameter_learns_from_the_method():
    setup = small_setup(12, 5)
    net = network().float()
    setup.__dict__.pop("inputs", None)
    method = setup.learned(net)
    e = torch.randn(setup.A.shape[0], 3, dtype=torch.float64)
    method.propagate(e).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_rounds_the_network_and_not_the_coarse_space(dtype):
    problem = poisson(delaunay(40))
    setup, net = set_up(problem, partition(problem.A, 50)), network().float()
    theta, shift = net(setup.inputs)
    with torch.autocast("cpu", dtype):
        rounded = net(setup.inputs)
        method = setup.learned(net)
    assert [x.dtype for x in rounded] == [torch.float32, torch.float32]
    for mine, exact in zip(rounded, (theta, shift), strict=True):
        assert (mine != exact).any()
        torch.testing.assert_close(
            mine, exact, rtol=0.1, atol=0.1 * float(exact.detach().abs().max())
        )
    node = torch.from_numpy(setup.decomposition.node)
    sums = torch.zeros(setup.A.shape[0]).index_add(0, node, rounded[1].detach())
    held = setup.inputs.held[:, 0] > 0
    assert held.any()
    assert sums[held].abs().max() < 1e-5
    e = torch.randn(setup.A.shape[0], 3, dtype=torch.float64)
    method.propagate(e).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_is_of_single_precision_whatever_the_default(dtype, tmp_path):
    setup = small_setup(12, 5)
    try:
        torch.set_default_dtype(dtype)
        net = InterfaceNet(width=8, layers=2)
        theta, _ = net(setup.inputs)
        net.save(tmp_path / "net.safetensors")
        again = InterfaceNet.load(tmp_path / "net.safetensors")
        verdict = ddm.safeguard.safeguarded(small_setup(12, 5), again)
    finally:
        torch.set_default_dtype(torch.float32)
    assert theta.dtype == torch.float32
    assert verdict.learned


def test_a_checkpoint_comes_back(tmp_path):
    net = network().float()
    net.save(tmp_path / "net.safetensors", seed="3")
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]
    again = InterfaceNet.load(tmp_path / "net.safetensors")
    assert again.config == net.config
    setup = small_setup(10, 4)
    for a, b in zip(net(setup.inputs), again(setup.inputs)):
        assert torch.equal(a, b)


def test_metadata_comes_back_alone_and_can_be_kept_again(tmp_path):
    path = tmp_path / "net.safetensors"
    network().float().save(path, seed="3")
    net = InterfaceNet.load(path)
    assert net.metadata == {"seed": "3"}
    net.save(path, **net.metadata)
    assert InterfaceNet.load(path).metadata == net.metadata


@pytest.mark.parametrize("name", ["config", "architecture"])
def test_metadata_does_not_take_the_names_that_a_checkpoint_is_read_by(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}: the file's own entry has this name"):
        network().float().save(tmp_path / "net.safetensors", **{name: "mine"})
    assert not list(tmp_path.iterdir())


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    network().float().save(path, seed="3")

    def killed(self, data):
        with self.open("wb") as file:
            file.write(data[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.write_bytes", killed)
    with pytest.raises(KeyboardInterrupt):
        network(1).float().save(path, seed="4")
    assert list(tmp_path.iterdir()) == [path]
    assert InterfaceNet.load(path).metadata == {"seed": "3"}


def test_sizes_are_whole_numbers_of_any_type(tmp_path):
    path = tmp_path / "net.safetensors"
    sizes = {"width": 8.0, "layers": np.int64(1), "hops": np.float32(2), "unknowns": 64.0}
    net = InterfaceNet(**sizes, theta=np.float32(0.5), coordinates=np.bool_(False))  # pyright: ignore[reportArgumentType]
    plain = InterfaceNet(width=8, layers=1, hops=2, unknowns=64, theta=0.5, coordinates=False)
    assert net.config == plain.config
    assert {type(size) for size in net.config.values()} == {int, float, bool}
    net.save(path)
    assert InterfaceNet.load(path).config == plain.config
    assert InterfaceNet(theta=Fraction(1, 2)).theta == 0.5  # pyright: ignore[reportArgumentType]


def test_checkpoints_that_are_not(tmp_path):
    path = tmp_path / "net.safetensors"
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        InterfaceNet.load(path)
    network().float().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        InterfaceNet.load(path)
    save_file({"a": torch.zeros(1)}, path, metadata={"architecture": "GraphUNet"})
    with pytest.raises(ValueError, match="holds architecture 'GraphUNet', expected 'InterfaceNet'"):
        InterfaceNet.load(path)
    save_file(
        {"a": torch.zeros(1)},
        path,
        metadata={"architecture": "InterfaceNet", "config": '{"width": 8, "layers": 1}'},
    )
    with pytest.raises(ValueError, match="do not fit its config"):
        InterfaceNet.load(path)


@pytest.mark.parametrize("config", [None, "{", '{"depth": 3}', '{"width": "wide"}'])
def test_a_checkpoint_with_another_config_is_refused(tmp_path, config):
    path = tmp_path / "net.safetensors"
    header = {"architecture": "InterfaceNet"} | ({} if config is None else {"config": config})
    save_file(network().float().state_dict(), path, metadata=header)
    with pytest.raises(ValueError, match=r"path: the weights in .* do not fit its config"):
        InterfaceNet.load(path)


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="path: no checkpoint"):
        InterfaceNet.load(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    net = InterfaceNet(width=8, layers=1)
    with torch.no_grad():
        next(net.head.parameters())[0, 0] = math.nan
    net.save(tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=r"head\.0\.weight has values that are not finite"):
        InterfaceNet.load(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width: expected at least 1 feature, got 0"),
        ({"unknowns": 0}, "unknowns: expected at least 1 unknown, got 0"),
        ({"smoothing": -1}, "smoothing: expected at least 0 Jacobi steps, got -1"),
        ({"theta": None}, "theta: expected a positive Robin weight, got None"),
        ({"theta": -1.0}, "theta: expected a positive Robin weight, got -1"),
        ({"theta": math.nan}, "theta: expected a positive Robin weight, got nan"),
        ({"theta": "1"}, "theta: expected a positive Robin weight, got 1"),
    ],
)
def test_sizes_of_networks(options, message):
    with pytest.raises(ValueError, match=message):
        InterfaceNet(**options)
