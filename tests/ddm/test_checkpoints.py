"""Networks that ship, by name."""

import json

import pytest
import torch

import ddm
from ddm.checkpoints import FOLDER


def test_names_are_those_of_the_files():
    assert "diffusion_2d" in ddm.pretrained_names()
    assert {f"{name}.safetensors" for name in ddm.pretrained_names()} == {
        path.name for path in FOLDER.iterdir() if path.suffix == ".safetensors"
    }


@pytest.mark.parametrize("name", ddm.pretrained_names())
def test_each_loads_and_says_what_it_was_trained_on(name):
    net = ddm.load_pretrained(name)
    assert not net.training
    assert json.loads(net.metadata["kinds"])
    assert int(net.metadata["dimension"]) in (2, 3)
    assert int(net.metadata["block_size"]) >= 1
    for what in ("data", "training", "seed", "minutes", "machine"):
        assert net.metadata[what]
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_other_names_are_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"name: expected one of .*diffusion_2d.*got 'poisson'$"):
        ddm.load_pretrained("poisson")


def test_a_path_is_refused_with_what_reads_it():
    with pytest.raises(ValueError, match=r"InterfaceNet\.load\(path\) reads a file"):
        ddm.load_pretrained("runs/mggnn.safetensors")
    with pytest.raises(TypeError, match="name: expected one of"):
        ddm.load_pretrained(FOLDER / "diffusion_2d.safetensors")  # pyright: ignore[reportArgumentType]


def test_metadata_survives_saving(tmp_path):
    net = ddm.InterfaceNet(width=4, layers=1)
    assert net.metadata == {}
    net.save(tmp_path / "net", kinds='["poisson"]')
    assert ddm.InterfaceNet.load(tmp_path / "net").metadata["kinds"] == '["poisson"]'
