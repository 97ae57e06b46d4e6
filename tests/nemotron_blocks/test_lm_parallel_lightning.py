"""Training over two processes, however they divide the work, has the losses of one process."""

import pytest
import torch
from lm_training import divided_in_two, fit, module, write_texts
from processes import run_together

from nemotron_blocks import HybridLM
from sparsetorch.resumable.checkpoints import check_checkpoint

WAYS = {  # sizes of data and tensor parallel, and what the former divide
    "fsdp": ((2, 1), "weights"),
    "tensor": ((1, 2), "weights"),
    "experts": ((2, 1), "experts"),
    "context": ((2, 1), "tokens"),
}
OWN_ROWS = ("fsdp", "experts")  # with these each process has rows of its own


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Two processes validate on all windows that one does.
    options = {"length": 40, "batch": 2, "validation": 0.35}
    return write_texts(tmp_path_factory.mktemp("data"), 40, **options)


@pytest.fixture(scope="module")
def singles(data, tmp_path_factory):
    """The single process that sees the rows of both, and that sees those of one."""
    folder = str(tmp_path_factory.mktemp("single"))
    return {
        own_rows: fit(folder, module("latent"), data, accumulate_grad_batches=1 + own_rows)
        for own_rows in (True, False)
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the ways of two processes write."""
    return tmp_path_factory.mktemp("divided")


@pytest.fixture(scope="module")
def divided(data, folder):
    """What each of two processes has, by way."""
    return run_together(
        divided_in_two, 2, folder, str(folder), "latent", data, WAYS,
        preload=["lm_training"], start=False,
    )  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(way, divided, singles, folder):
    own_rows, both = way in OWN_ROWS, [result[way] for result in divided]
    single = singles[own_rows]
    losses = [result["losses"] for result in both]
    if own_rows:
        found = [loss for pair in zip(*losses) for loss in pair]
        # Lightning gives the loss that accumulation has divided.
        expected = [2 * loss for loss in single["losses"]]
    else:
        found = [sum(pair) / 2 for pair in zip(*losses)]
        expected = single["losses"]
    assert found == pytest.approx(expected, rel=1e-4)
    check_checkpoint(folder / way / "two.ckpt")
    saved = HybridLM.from_pretrained(folder / way / "model").state_dict()
    for result in both:
        assert result["resumed"] == pytest.approx(result["losses"][2:], rel=1e-5)
        assert result["val"] == pytest.approx(single["val"], rel=1e-3)
        for name, weight in single["weights"].items():
            found = result["weights"][name]
            bias = name.endswith("e_score_correction_bias")  # moves by steps of one size
            rtol, atol = (0.0, 1e-7) if bias else (1e-2, 1e-4)
            torch.testing.assert_close(found, weight, msg=name, rtol=rtol, atol=atol)
            assert torch.equal(saved[name.removeprefix("model.")], found), name


def test_a_folder_that_was_not_written_to_its_end_is_refused(tmp_path):
    (tmp_path / ".metadata").touch()
    with pytest.raises(ValueError, match=r"checkpoint: .* is cut short, damaged, or no checkpoint"):
        check_checkpoint(tmp_path)
