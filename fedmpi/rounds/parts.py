"""A rank's parts of a run, in every kind of round."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from fedmpi.aggregation import Path
from fedmpi.cohort.pace import Paces
from fedmpi.cohort.seating import Seating
from fedmpi.flat import FlatModel
from fedmpi.flow import Comm, Engine, Layout, State
from fedmpi.plan import Plan
from fedmpi.records.memory import Memory
from fedmpi.records.profile import Profile
from fedmpi.rounds.scores import Scores
from fedmpi.rounds.scribe import Scribe


@dataclass(frozen=True)
class Parts:
    """The parts of a run on one rank, from its first round to its last."""

    plan: Plan
    comm: Comm
    flat: FlatModel
    layout: Layout
    state: State
    engine: Engine
    memory: Memory | None  # None where clients keep nothing between rounds
    path: Path
    seating: Seating
    scores: Scores
    scribe: Scribe | None  # on the scribe alone
    model: nn.Module  # the run's product
    profile: Profile | None = None  # of this rank's time, where it is wanted
    paces: Paces | None = None  # at home, where clients are dealt by the ranks' pace
