"""Logs in the format of CIKM Cup 2016, read as a stream."""

from graphnets.matching.cikm.load import load_cikm

__all__ = ["load_cikm"]
