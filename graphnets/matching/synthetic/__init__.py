"""Synthetic logs of any size, directly or as files in the format of CIKM Cup 2016."""

from graphnets.matching.synthetic.files import generate
from graphnets.matching.synthetic.settings import Synthetic
from graphnets.matching.synthetic.world import synthetic_logs, synthetic_world

__all__ = ["Synthetic", "generate", "synthetic_logs", "synthetic_world"]
