"""Layers as modules: states, copies, files, dtypes, compiled code and several processes."""

import copy
import io
from typing import Any, cast

import lightning as L
import pytest
import torch
from layers import IN, LAYERS, inputs, make, weight_pattern
from random_matrices import random_pattern
from safetensors.torch import load_model, save_model
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from sparsetorch import Pattern
from sparsetorch.nn import GCNConv, SparseLinear

every_layer = pytest.mark.parametrize("name", LAYERS)


def assert_same_outputs(name: str, got: nn.Module, expected: nn.Module) -> None:
    A, x = inputs()
    call = LAYERS[name].call
    torch.testing.assert_close(call(got, A, x), call(expected, A, x), rtol=0, atol=0)


@every_layer
def test_a_state_is_loaded_into_a_fresh_layer(name):
    module, fresh = make(name), make(name, seed=1)
    fresh.load_state_dict(module.state_dict())
    assert_same_outputs(name, fresh, module)
    fresh = make(name, seed=1)
    fresh.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    assert_same_outputs(name, fresh, module)


@every_layer
def test_safetensors(name, tmp_path):
    module, fresh = make(name), make(name, seed=1)
    save_model(module, str(tmp_path / "layer.safetensors"))
    load_model(fresh, str(tmp_path / "layer.safetensors"))
    assert_same_outputs(name, fresh, module)


@every_layer
def test_copies_and_pickles(name):
    module = make(name)
    copied = copy.deepcopy(module)
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    for other in (copied, torch.load(file, weights_only=False)):
        assert_same_outputs(name, other, module)
        for parameter in other.parameters():  # it is another module: nothing is shared
            nn.init.zeros_(parameter)
        assert any(bool(parameter.any()) for parameter in module.parameters())


@every_layer
def test_every_parameter_learns(name):
    module, (A, x) = make(name), inputs()
    LAYERS[name].call(module, A, x).square().sum().backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().max() > 0, key


@every_layer
def test_automatic_mixed_precision(name):
    module, (A, x) = make(name).float(), inputs()
    A, x = A.detach().to(torch.float32), x.detach().float()
    expected = LAYERS[name].call(module, A, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        # Features come in half precision from the layer before.
        y = LAYERS[name].call(module, A, x.to(torch.bfloat16))
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, rtol=0.05, atol=0.05)
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == p.dtype for p in module.parameters())


@every_layer
def test_compiles_as_one_graph(name):
    torch._dynamo.reset()
    module, (A, x), call = make(name), inputs(), LAYERS[name].call
    expected = call(module, A, x)
    expected.square().sum().backward()
    gradients = [p.grad for p in module.parameters()]
    module.zero_grad()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(module, A, x)
    torch.testing.assert_close(compiled, expected)
    compiled.square().sum().backward()
    torch.testing.assert_close([p.grad for p in module.parameters()], gradients)


def test_a_linear_layer_compiles_before_its_first_call_and_after_loading():
    file = io.BytesIO()
    torch.save(make("linear"), file)
    file.seek(0)
    _, x = inputs()
    for module in (make("linear"), torch.load(file, weights_only=False)):
        torch._dynamo.reset()
        y = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
        y.sum().backward()
        torch.testing.assert_close(y, make("linear")(x))


# The pattern of a linear layer


def test_dtypes_change_and_indices_do_not():
    module = SparseLinear(weight_pattern())
    pattern = module.pattern
    module.double()
    assert module.values.dtype == module(torch.ones(IN, dtype=torch.float64)).dtype == torch.float64
    assert module.pattern is pattern
    assert module.crow.dtype == module.col.dtype == torch.int32
    assert set(module.state_dict()) == {"values", "bias", "crow", "col"}


def test_layers_share_a_pattern_and_so_do_copies():
    pattern = weight_pattern()
    net = nn.Sequential(SparseLinear(pattern), nn.ReLU(), SparseLinear(pattern.T))
    assert net[0].pattern is pattern
    assert copy.deepcopy(net)[0].pattern is pattern
    assert net(torch.ones(2, IN)).shape == (2, IN)


def test_a_layer_made_without_memory_gets_it_later():
    with torch.device("meta"):
        module = SparseLinear(weight_pattern_on_host())
    assert module.values.is_meta
    module.to_empty(device="cpu")
    module.load_state_dict(make("linear").float().state_dict())
    expected = make("linear").float()
    x = torch.randn(3, IN)
    torch.testing.assert_close(module(x), expected(x))


def weight_pattern_on_host() -> Pattern:
    with torch.device("cpu"):
        return weight_pattern()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_pattern_moves_to_a_device():
    module = SparseLinear(weight_pattern())
    expected = module(torch.ones(2, IN))
    module.cuda()
    assert {module.crow.device.type, module.pattern.device.type} == {"cuda"}
    torch.testing.assert_close(module(torch.ones(2, IN).cuda()).cpu(), expected)


def test_a_state_with_another_pattern_is_refused():
    module = make("linear")
    before = module.state_dict()["values"].clone()
    other = random_pattern(*weight_pattern().shape, 0.5, seed=20)
    assert other.nnz != weight_pattern().nnz
    state = SparseLinear(other).double().state_dict()
    with pytest.raises(RuntimeError, match=r"crow: the state has another sparsity pattern"):
        module.load_state_dict(state)
    moved = module.state_dict()
    moved["col"] = moved["col"].flip(0)
    moved["values"] = moved["values"] * 2
    with pytest.raises(RuntimeError, match=r"0\.col: .* nothing of it was loaded; build .*0\.crow"):
        nn.Sequential(module).load_state_dict({f"0.{k}": v for k, v in moved.items()})
    assert torch.equal(module.state_dict()["values"], before)
    rebuilt = SparseLinear(Pattern(state["crow"], state["col"], other.shape)).double()
    rebuilt.load_state_dict(state)
    assert torch.equal(rebuilt.values, state["values"])


def test_a_state_with_other_index_dtypes_is_the_same_pattern():
    module, state = make("linear"), make("linear", seed=1).state_dict()
    module.load_state_dict({k: v.long() if "c" in k else v for k, v in state.items()})
    assert module.pattern.dtype == torch.int32
    assert torch.equal(module.state_dict()["values"], state["values"])


# Trainers


class Net(nn.Module):
    """A graph convolution and a sparse linear layer."""

    def __init__(self):
        super().__init__()
        self.gcn = GCNConv(IN, IN, dtype=torch.float64)
        self.linear = SparseLinear(weight_pattern(), dtype=torch.float64)

    def forward(self, x: Any) -> Any:
        return self.linear(self.gcn(inputs()[0].detach(), x).relu())


def batch() -> torch.Tensor:
    return torch.stack([inputs(seed)[1].detach() for seed in range(4)])


def loss_of(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return net(x).square().mean()


def _one_of_two(rank: int, meeting: str, results: Any) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=2
    )
    torch.manual_seed(rank)  # DDP gives rank 0's parameters to all
    net = DistributedDataParallel(Net())
    loss_of(net, batch()[2 * rank : 2 * rank + 2]).backward()
    results.put((rank, [p.grad.numpy() for p in net.parameters() if p.grad is not None]))
    del net  # gloo can wait for ever in the destructor of what outlives its group
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    meeting = str(tmp_path / "meeting")  # a port that is free now may be taken when it is needed
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_one_of_two, args=(rank, meeting, results), daemon=True)
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    torch.manual_seed(0)
    net = Net()
    loss_of(net, batch()).backward()
    for _ in range(2):
        _, gradients = results.get()
        assert len(gradients) == 4
        for parameter, gradient in zip(net.parameters(), gradients):
            torch.testing.assert_close(torch.from_numpy(gradient), parameter.grad)


class Training(L.LightningModule):
    """What a user writes around a net."""

    def __init__(self):
        super().__init__()
        self.net = Net()

    def training_step(self, x: torch.Tensor, index: int) -> torch.Tensor:
        return loss_of(self.net, x)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 1e-2)


def test_lightning_trains_and_its_checkpoint_has_everything(tmp_path):
    torch.manual_seed(0)
    module = Training()
    before = loss_of(module.net, batch()).item()
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        max_steps=20,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(cast(Any, list(batch())), batch_size=2))
    assert loss_of(module.net, batch()).item() < 0.7 * before
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    loaded = Training.load_from_checkpoint(checkpoint)
    torch.testing.assert_close(loaded.net(batch()), module.net(batch()))
