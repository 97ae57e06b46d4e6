"""Training that is stopped anywhere, and goes on with the next sample."""

from sparsetorch.resumable.loader import ResumableLoader

__all__ = ["ResumableLoader"]
