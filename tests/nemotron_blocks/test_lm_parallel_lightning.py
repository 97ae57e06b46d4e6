"""Training over two processes, however they divide the work, has the losses of one process."""

import pytest
import torch
from lm_training import divided_in_two, fit, module, write_texts
from processes import run_together

from nemotron_blocks import HybridLM

# Sizes of data and tensor parallel, what the former divide, and whether rows differ by process.
WAYS = {
    "fsdp": ((2, 1), "weights", True),
    "tensor": ((1, 2), "weights", False),
    "experts": ((2, 1), "experts", True),
    "context": ((2, 1), "tokens", False),
}


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


@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(way, data, singles, tmp_path):
    sizes, divide, own_rows = WAYS[way]
    single = singles[own_rows]
    both = run_together(
        divided_in_two, 2, tmp_path, str(tmp_path), "latent", data, sizes, divide,
        preload=["lm_training"], start=False,
    )  # fmt: skip
    losses = [result["losses"] for result in both]
    if own_rows:
        found = [loss for pair in zip(*losses) for loss in pair]
        # Lightning gives the loss that accumulation has divided.
        expected = [2 * loss for loss in single["losses"]]
    else:
        found = [sum(pair) / 2 for pair in zip(*losses)]
        expected = single["losses"]
    assert found == pytest.approx(expected, rel=1e-4)
    saved = HybridLM.from_pretrained(tmp_path).state_dict()
    for result in both:
        assert result["resumed"] == pytest.approx(result["losses"][2:], rel=1e-5)
        assert result["val"] == pytest.approx(single["val"], rel=1e-3)
        for name, weight in single["weights"].items():
            torch.testing.assert_close(
                result["weights"][name], weight, rtol=1e-2, atol=1e-4, msg=name
            )
            assert torch.equal(saved[name.removeprefix("model.")], result["weights"][name])
