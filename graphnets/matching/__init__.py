"""Match the devices of one person from their logs: logs, candidates, scores, users."""

from graphnets.matching.logs import Logs, Pages

__all__ = ["Logs", "Pages"]
