"""Training in two processes is training in one that adds up the gradients of both."""

import pytest
import torch
from lm_training import fit, in_two, module, write_texts
from processes import run_together


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    # Two processes validate on all windows that one does.
    options = {"length": 40, "batch": 2, "validation": 0.35}
    return write_texts(tmp_path_factory.mktemp("data"), 40, **options)


@pytest.mark.parametrize("family", ["latent"])
def test_two_processes_train_as_one(family, data, tmp_path):
    single = fit(str(tmp_path), module(family), data, accumulate_grad_batches=2)
    both = run_together(
        in_two, 2, tmp_path, str(tmp_path), family, data, preload=["lm_training"], start=False
    )
    dealt = [loss for pair in zip(*(result["losses"] for result in both)) for loss in pair]
    # Lightning gives the loss that accumulation has divided.
    assert dealt == pytest.approx([2 * loss for loss in single["losses"]], rel=1e-4)
    for result in both:
        assert result["val"] == pytest.approx(single["val"], rel=1e-3)
        for name, weight in single["weights"].items():
            if name.endswith("e_score_correction_bias"):
                assert torch.equal(result["weights"][name], weight), name
                assert bool(weight.any())
            else:
                torch.testing.assert_close(
                    result["weights"][name], weight, rtol=1e-2, atol=1e-4, msg=name
                )
