"""Training: it learns, it resumes, and its schedule ends at zero."""

import math
import warnings
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, Timer
from small_problems import small_setup

import ddm
import ddm.coarse.solver
from ddm.lightning import MeshDataModule, SchwarzModule
from ddm.local import SingularError, SparseBlocks
from ddm.losses import krylov_reduction, stochastic_norm
from sparsetorch.resumable.checkpoints import check_checkpoint

MESHES = sorted((Path(__file__).parents[2] / "examples" / "meshes").glob("*.msh"))
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@pytest.fixture(autouse=True)
def _quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture
def data(tmp_path):
    return MeshDataModule(
        str(tmp_path / "meshes"),
        count=2,
        subdomain=(30, 60),
        val_count=1,
        files=tuple(map(str, MESHES[:2])),
    )


def module(**options) -> SchwarzModule:
    torch.manual_seed(0)
    return SchwarzModule(width=8, layers=2, vectors=8, steps=5, warmup=2, **options)


def trainer(folder, steps: int, **options) -> L.Trainer:
    return L.Trainer(
        default_root_dir=folder,
        max_steps=steps,
        **{"enable_checkpointing": False, **options},
        **QUIET,
    )


def test_training_lowers_the_loss(tmp_path, data):
    net = module(lr=1e-2)
    data.prepare_data()
    setups = list(data.train_dataloader())

    def loss() -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            return sum(float(net.loss(setup)) for setup in setups)

    before = loss()
    trainer(tmp_path, 40, limit_val_batches=0).fit(net, datamodule=data)
    assert loss() < before - 1  # logarithms of factors


def test_validation_of_the_untrained_network_is_the_classical_method(tmp_path, data):
    (metrics,) = trainer(tmp_path, 1).validate(module(), datamodule=data, verbose=False)
    assert metrics["val/ratio"] == 1.0
    assert 0 < metrics["val/factor"] < 1


@pytest.mark.parametrize("curriculum", ["size", "kind"])
def test_a_curriculum_begins_with_a_part_and_ends_with_all(tmp_path, curriculum):
    data = MeshDataModule(
        str(tmp_path), 8, (60, 240), (30, 60), val_count=1, kinds=("poisson", "diffusion"),
        curriculum=curriculum, growth=1.0,
    )  # fmt: skip
    data.prepare_data()
    loader = data.train_dataloader()
    setups = list(loader)
    assert len(setups) == 8
    sizes = [setup.A.shape[0] for setup in setups]
    keys: list[Any] = [setup.key for setup in setups]
    assert len(set(keys)) < 8
    sampler: Any = loader.sampler
    sampler.set_epoch(1)
    everything = list(loader)
    assert len({setup.key for setup in everything}) == 8
    if curriculum == "size":
        assert sizes[0] == min(setup.A.shape[0] for setup in everything)
    else:
        assert keys[0] in range(0, 8, 2)
        assert sum(key % 2 for key in keys) < 4


def test_a_curriculum_by_another_name_is_refused(tmp_path):
    with pytest.raises(ValueError, match="growth: expected a number of at least 0, got -1"):
        MeshDataModule(str(tmp_path), curriculum="size", growth=-1)
    with pytest.raises(
        ValueError, match='curriculum: expected "size", "kind" or None, got \'hard\''
    ):
        MeshDataModule(str(tmp_path), curriculum="hard")  # type: ignore[arg-type]


def test_a_killed_run_gives_what_it_would_have_given(tmp_path, data):
    class Killed(RuntimeError):
        pass

    class Kill(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                raise Killed

    def run(folder, *callbacks, ckpt_path=None) -> SchwarzModule:
        L.seed_everything(0, verbose=False)
        net = module()
        options = {"limit_val_batches": 0, "enable_checkpointing": bool(callbacks)}
        trainer(tmp_path / folder, 8, callbacks=list(callbacks), **options).fit(
            net, datamodule=data, ckpt_path=ckpt_path
        )
        return net

    whole = run("whole")
    keep = ModelCheckpoint(dirpath=tmp_path / "kept", save_last=True, every_n_train_steps=2)
    with pytest.raises(Killed):
        run("killed", keep, Kill())
    last = tmp_path / "kept" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4
    resumed = run("resumed", ckpt_path=last)
    for expected, found in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_mixed_precision_is_for_the_network_alone(tmp_path, data):
    data.prepare_data()
    setup = next(iter(data.train_dataloader()))
    net = module()
    torch.nn.init.normal_(list(net.net.head.parameters())[-2])

    def gradients() -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(1)
        net._errors.clear()
        net.zero_grad()
        loss = net.training_step(setup, 0)
        loss.backward()
        found: list[Any] = [p.grad for p in net.parameters()]
        return loss.detach(), torch.cat([g.flatten() for g in found])

    exact, expected = gradients()
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = gradients()
    assert loss != exact
    torch.testing.assert_close(loss, exact, rtol=0.02, atol=0.02)
    assert torch.cosine_similarity(found, expected, dim=0) > 0.99
    weights = [p.detach().clone() for p in net.parameters()]
    trainer(tmp_path, 2, precision="bf16-mixed").fit(net, datamodule=data)
    assert all((p != before).any() for p, before in zip(net.parameters(), weights, strict=True))


def test_the_loss_is_the_sum_of_two_logarithms(data):
    data.prepare_data()
    setup = next(iter(data.train_dataloader()))

    def loss(**options) -> torch.Tensor:
        net = module(**options)
        torch.manual_seed(1)
        return net.loss(setup)

    norm = loss(krylov=0.0)
    once, twice = (loss(krylov=weight) - norm for weight in (1.0, 2.0))
    torch.testing.assert_close(twice, 2 * once)
    method = setup.classical(0.5)  # what the untrained network is
    net = module()
    torch.manual_seed(1)
    e = net._slow_errors(setup, method)
    expected = stochastic_norm(method.propagate, e, steps=5, sharpness=5.0).log()
    torch.testing.assert_close(norm, expected, rtol=1e-3, atol=1e-5)
    b = net._random(setup, 6)
    expected = krylov_reduction(setup.A, method.apply, b, steps=5).log()
    torch.testing.assert_close(once, expected, rtol=1e-3, atol=1e-5)
    assert norm < 0
    assert once < 0


def test_what_a_step_keeps_for_its_gradients_grows_as_the_matrix():
    kept = []
    for n_side, n_parts in ((16, 8), (32, 32)):
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        setup = small_setup(n_side, n_parts, overlap=2, smoothing=2).in_precision(torch.float32)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            module().loss(setup)
        kept.append(count / setup.A.shape[0])
    assert kept[1] < 1.35 * kept[0]


def test_methods_with_slow_errors_are_trained(tmp_path, data):
    data.prepare_data()
    setup = next(iter(data.train_dataloader()))
    net, plain = module(enrich=2, krylov=0.0), module(krylov=0.0)

    def loss(module: SchwarzModule) -> torch.Tensor:
        torch.manual_seed(1)
        return module.loss(setup)

    wider, other = ddm.enriched(setup.learned(net.net), 2), module()
    torch.manual_seed(1)
    e = other._slow_errors(setup, wider)
    expected = stochastic_norm(wider.propagate, e, steps=5, sharpness=5.0).log()
    torch.testing.assert_close(loss(net), expected, rtol=1e-3, atol=1e-5)
    assert loss(net) < loss(plain) - 0.1
    (metrics,) = trainer(tmp_path, 1).validate(net, datamodule=data, verbose=False)
    assert metrics["val/ratio"] == 1.0  # both have them
    (without,) = trainer(tmp_path, 1).validate(plain, datamodule=data, verbose=False)
    assert metrics["val/factor"] < without["val/factor"]
    trainer(tmp_path, 3, limit_val_batches=0).fit(net, datamodule=data)
    assert net.net.head[-1].weight.abs().max() > 0  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


@pytest.mark.parametrize("warmup", [0, 2])
def test_slow_errors_go_on_with_those_that_are_known(warmup):
    setup = small_setup()
    method = setup.classical(0.5)
    net = SchwarzModule(width=8, layers=1, vectors=8, warmup=warmup)
    first = net._slow_errors(setup, method)
    expected = net._errors[setup.key].to(first.dtype)  # kept in half precision
    torch.testing.assert_close(expected, first, rtol=1e-2, atol=0)
    for _ in range(warmup):
        expected = method.propagate(expected)
        expected = expected / expected.norm(dim=0)
    found = net._slow_errors(setup, method)
    torch.testing.assert_close(found[:, 2:], expected[:, 2:])
    assert (found[:, :2] - expected[:, :2]).abs().max() > 1e-3  # a quarter is drawn anew
    other = small_setup(seed=1)
    assert net._slow_errors(other, other.classical(0.5)).shape == (other.A.shape[0], 8)
    torch.testing.assert_close(net._errors[setup.key], found.to(torch.bfloat16))


def test_slow_errors_approach_the_slowest():
    setup = small_setup(12, 6)
    method = setup.classical(0.5)
    net = SchwarzModule(width=8, layers=1, vectors=4, warmup=3)
    T = method.propagate(torch.eye(setup.A.shape[0], dtype=torch.float64))
    radius = float(torch.linalg.eigvals(T).abs().max())
    for _ in range(30):
        e = net._slow_errors(setup, method)
    falls = method.propagate(e).norm(dim=0)[1:]
    torch.testing.assert_close(falls, torch.full_like(falls, radius), rtol=1e-2, atol=0)


def test_errors_that_overflow_are_drawn_anew():
    class Overflows:
        def propagate(self, e):
            return e.index_fill(1, torch.tensor([1]), math.inf)

    setup = small_setup()
    net = SchwarzModule(width=8, layers=1, vectors=4, warmup=2)
    e = net._slow_errors(setup, Overflows())  # pyright: ignore[reportArgumentType]
    assert e.isfinite().all()
    torch.testing.assert_close(e.norm(dim=0), torch.ones_like(e[0]))


def test_learning_rate_warms_up_and_ends_at_zero(tmp_path, data):
    rates = []

    class Record(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    net = module(lr=1.0)
    trainer(tmp_path, 60, callbacks=[Record()], limit_val_batches=0).fit(net, datamodule=data)
    assert rates[0] < 0.15
    assert max(rates) > 0.75
    assert rates[-1] < 1e-3
    assert rates.index(max(rates)) in range(15, 25)
    # Recorded after the scheduler's step: rate k is that of step k + 1.
    step = np.arange(1, 61)
    expected = np.minimum(1, (step + 1) / 20) * 0.5 * (1 + np.cos(np.pi * step / 60))
    np.testing.assert_allclose(rates, expected, atol=1e-12)


@pytest.mark.parametrize(("steps", "done"), [(math.inf, 0.75), (400, 0.75), (110, 100 / 110)])
def test_the_learning_rate_follows_the_clock_if_that_is_further(steps, done):
    class Clock(Timer):
        def time_elapsed(self, *_):
            return 30.0

        def time_remaining(self, *_):
            return 10.0

    class Run:
        estimated_stepping_batches = steps
        callbacks: ClassVar = [Clock(duration={"seconds": 40})]

    net = module()
    run = Run()  # the module keeps a weak reference
    net.trainer = run  # type: ignore[assignment]
    assert net._learning_rate_factor(100) == pytest.approx(0.5 * (1 + math.cos(math.pi * done)))


def test_a_checkpoint_that_is_not_whole_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    with pytest.raises(FileNotFoundError, match=r"no file .*last\.ckpt; start without"):
        check_checkpoint(path)
    torch.save({"state_dict": {"w": torch.arange(100.0)}}, path)
    check_checkpoint(path)
    whole = path.read_bytes()
    place = whole.index(torch.arange(100.0).numpy().tobytes()) + 5
    altered = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
    for damaged in (b"", whole[:1000], whole[:-1], altered, b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.ckpt is cut short, damaged.*start without"):
            check_checkpoint(path)
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="no checkpoint"):
        check_checkpoint(tmp_path / "arrays.npz")


def _singular(monkeypatch, which, refused):
    """Local or coarse matrices are singular in the given precisions."""
    if which == "local":
        factor = SparseBlocks.factor

        def failing(self, values):
            if values.dtype in refused:
                raise SingularError("of some subdomain")
            return factor(self, values)

        monkeypatch.setattr(SparseBlocks, "factor", failing)
        return
    monkeypatch.setattr(
        ddm.coarse.solver,
        "blown_up_by",
        lambda solve, diagonal: diagonal.nonzero() if diagonal.dtype in refused else (),
    )


def fit_skipping(run: L.Trainer, net, data, everything: bool) -> None:
    """Train; if every step is skipped, that is an error, after the epoch."""
    if not everything:
        run.fit(net, datamodule=data)
        assert run.global_step == 3
        assert run.callback_metrics["train/skipped"] == 0
        return
    with pytest.raises(ValueError, match="all steps of this epoch were skipped; the last: "):
        run.fit(net, datamodule=data)
    assert run.global_step == 2  # an epoch
    assert run.callback_metrics["train/skipped"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"vectors": 0}, "vectors: expected at least 1 error, got 0"),
        ({"steps": 0}, "steps: expected at least 1 step, got 0"),
        ({"warmup": -1}, "warmup: expected at least 0 iterations, got -1"),
        ({"right_hand_sides": 0}, "right_hand_sides: expected at least 1"),
        ({"enrich": -1}, "enrich: expected at least 0"),
        ({"sharpness": -1.0}, "sharpness: expected a number of at least 0, got -1.0"),
        ({"krylov": -1.0}, "krylov: expected a number of at least 0"),
        ({"lr": float("nan")}, "lr: expected a number of at least 0"),
    ],
)
def test_numbers_of_a_training_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        SchwarzModule(**options)


@pytest.mark.parametrize("which", ["local", "coarse"])
@pytest.mark.parametrize("refused", [{torch.float32}, {torch.float32, torch.float64}])
def test_training_goes_on_where_matrices_are_singular(tmp_path, data, monkeypatch, which, refused):
    _singular(monkeypatch, which, refused)
    net = module(lr=1e-2)
    run = trainer(tmp_path, 3, limit_val_batches=0)
    fit_skipping(run, net, data, torch.float64 in refused)
    last: Any = net.net.head[-1]
    assert bool(last.weight.any()) == (torch.float64 not in refused)  # it starts at zero


@pytest.mark.parametrize("refused", [{torch.float32}, {torch.float32, torch.float64}])
@pytest.mark.parametrize("how", ["infinite", "refused by a solve"])
def test_training_goes_on_where_gradients_leave_the_range(tmp_path, data, refused, how):
    class Far(type(module())):
        def loss(self, setup):
            value = super().loss(setup)
            if setup.A.dtype not in refused:
                return value
            if how == "infinite":
                return value * torch.inf
            value.register_hook(self._refuse)
            return value

        @staticmethod
        def _refuse(gradient):
            raise ValueError("b: expected finite numbers")

    net = Far(**module(lr=1e-2).hparams)
    fit_skipping(trainer(tmp_path, 3, limit_val_batches=0), net, data, torch.float64 in refused)
    last: Any = net.net.head[-1]
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert bool(last.weight.any()) == (torch.float64 not in refused)
