"""A run: its rounds, from the first model to the last line."""

from fedmpi.plan.assemble import assemble, resolved_table
from fedmpi.plan.plan import Plan
from fedmpi.rounds.baseline import baseline
from fedmpi.rounds.run import Run, train

__all__ = ["Plan", "Run", "assemble", "baseline", "resolved_table", "train"]
