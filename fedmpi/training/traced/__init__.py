"""Training by recorded steps."""

from fedmpi.training.traced.engine import Traced

__all__ = ["Traced"]
