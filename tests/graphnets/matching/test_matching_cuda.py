"""Matchers of devices on a GPU, against the CPU; skipped where there is none."""

import copy

import lightning as L
import pytest
import torch
from small_logs import write_xdt
from test_matcher import KNOWN, LOGS, MATCHERS, PAIRS, VECTORS
from test_matching_lightning import SMALL, Losses

from graphnets.matching.explain import attention, why_linked
from graphnets.matching.lightning import PairMatcher
from graphnets.matching.neighbours import nearest
from graphnets.matching.scoring import encode_devices, score_pairs
from graphnets.matching.training.lightning import LogsDataModule

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU: matchers are NOT tested on one"
)

NEIGHBOURS = {"neighbours": {"width": 8, "heads": ["shared"], "rounds": 2, "dropout": 0.0}}
TRAINED = NEIGHBOURS | {
    "cross": {"width": 8, "heads": ["cross", "pooled"], "vectors": 4, "dropout": 0.0},
    "tgce": {"network": "tgce", "vectors": 8},
    "linear": {"width": 0, "rounds": 2, "linear": True},  # examples/train_matcher.yaml
}


@pytest.mark.parametrize("name", MATCHERS)
def test_scores_are_those_of_the_cpu(name):
    torch.manual_seed(0)
    here = MATCHERS[name]().eval()
    there = copy.deepcopy(here).cuda()
    vectors = VECTORS if getattr(here, "vectors", 1) else None
    both = here, there
    encoded = [encode_devices(matcher, LOGS, KNOWN, vectors) for matcher in both]
    scores = [score_pairs(matcher, devices, PAIRS, 50) for matcher, devices in zip(both, encoded)]
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-3, atol=1e-4)
    if encoded[0].vectors.shape[1]:
        found = [nearest(devices.vectors, 3).score for devices in encoded]
        torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4)
    if encoded[0].weights.shape[1]:
        why = [why_linked(devices, (0, 1), LOGS, KNOWN) for devices in encoded]
        assert [e.share for e in why[1]] == pytest.approx([e.share for e in why[0]], rel=1e-3)
    if encoded[0].nodes.values.shape[1]:
        heads = [matcher.heads["cross"] for matcher in both]
        found = [attention(head, d, (0, 1)).weights.cpu() for head, d in zip(heads, encoded)]
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_training_is_that_of_the_cpu(name, tmp_path):
    path = str(write_xdt(tmp_path / "xdt.npz"))
    options = TRAINED[name]
    values = []
    for accelerator in ("cpu", "cuda"):
        losses = Losses()
        L.seed_everything(0, verbose=False)
        module = PairMatcher(**options)
        for layer in module.modules():
            if isinstance(layer, torch.nn.Dropout):
                layer.p = 0.0
        vectors = options.get("vectors", 0)
        data = LogsDataModule(path, fold=0, validation=1, vectors=vectors, **SMALL)
        trainer = L.Trainer(
            max_epochs=2, accelerator=accelerator, devices=1, logger=False, callbacks=[losses],
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, data)
        values.append(losses.values)
    assert values[1] == pytest.approx(values[0], rel=1e-2)
