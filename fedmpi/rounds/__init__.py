"""When things happen: rounds, and a run of them."""

from fedmpi.rounds.assemble import assemble, resolved_table
from fedmpi.rounds.baseline import baseline
from fedmpi.rounds.plan import Plan
from fedmpi.rounds.run import Run, train

__all__ = ["Plan", "Run", "assemble", "baseline", "resolved_table", "train"]
