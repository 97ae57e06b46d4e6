"""Twenty steps of training, for each family of models, give the losses that they gave before.

The values are of this library itself: they say that training has changed, not that it was right,
which the comparison with transformers says. A change that is meant to change them has to say so.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from lm_training import FAMILIES, module

from nemotron_blocks.batches import Batch

GOLDEN = Path(__file__).with_name("golden_losses.json")


def losses(family):
    """Of 20 steps of Adam on one batch of three documents, by float64."""
    learner = module(family).double()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(259, (2, 25), generator=generator)
    seq_idx = torch.tensor([[0] * 10 + [1] * 14, [0] * 24])
    targets = tokens[:, 1:].clone()
    targets[0, 9] = -100
    batch = Batch(tokens[:, :-1], targets, seq_idx)
    optimizer = torch.optim.Adam(learner.parameters(), 3e-3)
    found = []
    for _ in range(20):
        optimizer.zero_grad()
        parts = learner.losses(batch)
        loss = parts["next"] + 0.3 * parts.get("ahead", torch.zeros(()))
        loss.backward()
        optimizer.step()
        found.append(round(float(loss.detach()), 6))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_losses_are_what_they_were(family):
    found = losses(family)
    if os.environ.get("WRITE_GOLDEN"):
        kept = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(json.dumps(kept | {family: found}) + "\n")
    assert found == pytest.approx(json.loads(GOLDEN.read_text())[family], rel=1e-4)
    assert found[-1] < 0.8 * found[0]
