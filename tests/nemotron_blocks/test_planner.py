"""Parameters of the published models, from their configs."""

import pytest

from nemotron_blocks.config import HybridConfig
from nemotron_blocks.planner import plan
from nemotron_blocks.presets import PRESETS

PUBLISHED = {  # billions, all and active
    "nemotron-h-8b": (8.10, None),
    "nemotron-h-4b": (4.49, None),
    "nemotron-h-56b": (56.32, None),
    "nemotron-h-47b": (46.79, None),
    "nemotron-nano-12b-v2": (12.31, None),
    "nemotron-nano-9b-v2": (8.89, None),
    "nemotron-3-nano-4b": (3.97, None),
    "nemotron-3-nano-30b-a3b": (31.58, 3.58),
    "nemotron-3-super-120b-a12b": (120.67, 12.77),
    "nemotron-3-ultra-550b-a55b": (549.3, 56.06),
}


@pytest.mark.parametrize("name", PRESETS)
def test_published_sizes(name):
    found = plan(HybridConfig.preset(name))
    total, active = PUBLISHED[name]
    digits = 1 if total > 500 else 2
    assert round(found.parameters / 1e9, digits) == total
    if active:
        assert round(found.active / 1e9, 2) == active
