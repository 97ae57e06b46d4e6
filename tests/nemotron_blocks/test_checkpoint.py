"""Checkpoints come back as they went, in one file or many, and what is wrong with one is said."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import drawn_tokens, small_model

from nemotron_blocks.model import HybridLM
from nemotron_blocks.weight_files import INDEX, SINGLE

PATTERN = "M*-E/*E/*E"


def same(ours, theirs):
    for (name, a), (_, b) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
        assert a.dtype == b.dtype, name


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_comes_back(tmp_path, shard_bytes, tied):
    model = small_model(PATTERN, d_latent=8, tie_embeddings=tied)
    model.save_pretrained(tmp_path, shard_bytes=shard_bytes)
    assert (tmp_path / INDEX).exists() == (shard_bytes < 10**9)
    found = HybridLM.from_pretrained(tmp_path)
    assert found.config == model.config
    same(model, found)
    tokens = drawn_tokens(1, 7)
    with torch.no_grad():
        assert torch.equal(model(tokens), found(tokens))
    assert not list(tmp_path.glob("*.partial"))


def test_names_are_those_of_the_hub(tmp_path):
    small_model(PATTERN, d_latent=8).save_pretrained(tmp_path)
    names = set(load_file(tmp_path / SINGLE))
    for name in (
        "backbone.embeddings.weight",
        "backbone.layers.0.mixer.A_log",
        "backbone.layers.0.mixer.conv1d.weight",
        "backbone.layers.1.mixer.q_proj.weight",
        "backbone.layers.2.mixer.up_proj.weight",
        "backbone.layers.3.mixer.gate.e_score_correction_bias",
        "backbone.layers.3.mixer.experts.7.down_proj.weight",
        "backbone.layers.3.mixer.shared_experts.up_proj.weight",
        "backbone.layers.3.mixer.fc1_latent_proj.weight",
        "backbone.norm_f.weight",
        "lm_head.weight",
        "mtp.layers.0.enorm.weight",
        "mtp.layers.0.eh_proj.weight",
        "mtp.layers.0.mixer.q_proj.weight",
        "mtp.layers.1.mixer.experts.0.up_proj.weight",
        "mtp.layers.1.final_layernorm.weight",
    ):
        assert name in names
    assert not any(name.startswith("mtp.layers.2") for name in names)  # one block, shared


def test_a_dtype_can_be_asked_for_and_routers_keep_theirs(tmp_path):
    model = small_model(PATTERN)
    model.save_pretrained(tmp_path)
    half = HybridLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16
    gate = "layers.3.mixer.gate.weight"
    assert half.get_parameter(gate).dtype == torch.float32
    assert torch.equal(half.get_parameter(gate), model.get_parameter(gate))
    half.save_pretrained(tmp_path / "half")
    same(half, HybridLM.from_pretrained(tmp_path / "half"))  # config.json remembers


def test_tokens_ahead_can_be_left_out(tmp_path):
    model = small_model(PATTERN)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / SINGLE)
    without = {name: w for name, w in weights.items() if not name.startswith("mtp.")}
    save_file(without, tmp_path / SINGLE)
    with pytest.raises(ValueError, match=r"lacks mtp\..* and \d+ more; .*: mtp=False"):
        HybridLM.from_pretrained(tmp_path)
    found = HybridLM.from_pretrained(tmp_path, mtp=False)
    assert found.mtp is None
    tokens = drawn_tokens(1, 7)
    with torch.no_grad():
        assert torch.equal(model(tokens), found(tokens))


def test_a_block_for_each_depth_is_refused_unless_they_are_one(tmp_path):
    model = small_model(PATTERN)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / SINGLE)
    for name, weight in list(weights.items()):
        if name.startswith("mtp.layers."):
            depth_layer = int(name.split(".")[2])
            weights[name.replace(f".{depth_layer}.", f".{depth_layer + 2}.", 1)] = weight.clone()
    save_file(weights, tmp_path / SINGLE)
    same(model, HybridLM.from_pretrained(tmp_path))
    weights["mtp.layers.3.mixer.experts.1.up_proj.weight"].fill_(7)
    save_file(weights, tmp_path / SINGLE)
    with pytest.raises(
        ValueError,
        match=r"'mtp.layers.[13].mixer.experts.1.up_proj.weight' in model.safetensors differs from "
        r"'mtp.layers.[13].mixer.experts.1.up_proj.weight', and this library has one block for all",
    ):
        HybridLM.from_pretrained(tmp_path)


def test_an_output_that_is_not_the_embedding_is_refused_where_they_are_tied(tmp_path):
    model = small_model("M", tie_embeddings=True)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / SINGLE)
    weights["lm_head.weight"] = weights["backbone.embeddings.weight"].clone()
    save_file(weights, tmp_path / SINGLE)
    same(model, HybridLM.from_pretrained(tmp_path))
    weights["lm_head.weight"] += 1
    save_file(weights, tmp_path / SINGLE)
    with pytest.raises(ValueError, match=r"differs from .*, and both name one weight"):
        HybridLM.from_pretrained(tmp_path)


def test_a_config_that_does_not_fit_is_named_with_its_file(tmp_path):
    small_model("M").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("bf16", "auto", "int8", "ones", 7, ["float32"]):
        (tmp_path / "config.json").write_text(json.dumps(config | {"dtype": name}))
        with pytest.raises(ValueError, match=r"config.json: dtype: expected one of float16, bfl"):
            HybridLM.from_pretrained(tmp_path)
        found = HybridLM.from_pretrained(tmp_path, dtype=torch.float64)
        assert found.lm_head.weight.dtype == torch.float64
    with pytest.raises(ValueError, match=r"^dtype: expected one of .*, got 'int8'"):
        HybridLM.from_pretrained(tmp_path, dtype=torch.int8)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": None}))
    with pytest.raises(ValueError, match=r"config.json: hidden_size: expected an integer, got Non"):
        HybridLM.from_pretrained(tmp_path)
    del config["dtype"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"torch_dtype": "float16"}))
    assert HybridLM.from_pretrained(tmp_path).lm_head.weight.dtype == torch.float16


@pytest.fixture
def saved(tmp_path):
    small_model("M*E").save_pretrained(tmp_path, shard_bytes=20_000)
    return tmp_path


def one_file(folder):
    """All weights, in a single file."""
    weights = {}
    for path in folder.glob("*.safetensors"):
        weights |= load_file(path)
        path.unlink()
    (folder / INDEX).unlink()
    return weights


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("backbone.layers.1.mixer.k_proj.weight"), "lacks layers.1.mixer.k_proj"),
        (
            lambda w: w.pop("backbone.layers.2.mixer.experts.3.up_proj.weight"),
            r"lacks layers.2.mixer.experts.up\[3\]",
        ),
        (
            lambda w: w.update({"lm_head.weight": torch.zeros(60, 32)}),
            r"'lm_head.weight' in model.safetensors has shape \(60, 32\), config.json says \(61, 3",
        ),
        (
            lambda w: w.update({"backbone.layers.0.mixer.bias": torch.zeros(1)}),
            "has 'backbone.layers.0.mixer.bias', no weight of such a model",
        ),
        (
            lambda w: w.update(
                {"backbone.layers.2.mixer.experts.8.up_proj.weight": torch.zeros(24, 32)}
            ),
            "experts.8.up_proj.weight' is of more than 8 experts",
        ),
        (
            lambda w: w.update({"model.norm_f.weight": torch.zeros(32)}),
            "norm_f.weight' in model.safetensors differs from '.*norm_f.weight', and both name one",
        ),
        (
            lambda w: w.update({"lm_head.weight": torch.zeros(61, 32, dtype=torch.int8)}),
            "'lm_head.weight' in model.safetensors is of int8, expected one of .*quantized",
        ),
        (
            lambda w: w.update({"lm_head.weight": w["lm_head.weight"].to(torch.float8_e4m3fn)}),
            "'lm_head.weight' in model.safetensors is of float8_e4m3fn, expected one of float16",
        ),
        (
            lambda w: w.update({"mtp.layers.x": torch.zeros(1)}),
            "has 'mtp.layers.x', no weight of such a model",
        ),
        (
            lambda w: w.update({"mtp.layers.x.norm.weight": torch.zeros(32)}),
            "has 'mtp.layers.x.norm.weight', no weight of such a model",
        ),
        (
            lambda w: w.update({"backbone.layers.2.mixer.experts.up": torch.zeros(8, 24, 32)}),
            "has 'backbone.layers.2.mixer.experts.up', no weight of such a model",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(saved, change, message):
    weights = one_file(saved)
    change(weights)
    save_file(weights, saved / SINGLE)
    with pytest.raises(ValueError, match=message):
        HybridLM.from_pretrained(saved)


def test_files_that_are_missing_or_damaged_are_named(saved, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        HybridLM.from_pretrained(empty)
    shards = sorted(saved.glob("*.safetensors"))
    shards[1].write_bytes(shards[1].read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"{shards[1].name} is cut short or damaged"):
        HybridLM.from_pretrained(saved)
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks {shards[1].name}"):
        HybridLM.from_pretrained(saved)
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config)[:-5])
    with pytest.raises(ValueError, match=r"config.json is cut short or damaged"):
        HybridLM.from_pretrained(saved)
