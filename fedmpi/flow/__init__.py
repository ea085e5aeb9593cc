"""Values passed between rooms: a run's state, a client, its update, one crossing, and their protocols."""

import os

from fedmpi.flow.client import Batch, Client, Learner, Rule
from fedmpi.flow.comm import Comm, Pending
from fedmpi.flow.engine import Engine, Learned
from fedmpi.flow.facts import Facts
from fedmpi.flow.keys import entropy, key, keys
from fedmpi.flow.layout import TOTALS, Layout
from fedmpi.flow.losses import losses_of
from fedmpi.flow.passage import REASONS, Clients, Passage, Places, Unfit
from fedmpi.flow.protocols import LOWER, Examples, Memory, Task
from fedmpi.flow.state import HEADER, SAID, State
from fedmpi.flow.strategy import Strategy
from fedmpi.tell import Refused

Where = str | os.PathLike[str]  # a path

__all__ = [
    "HEADER",
    "LOWER",
    "REASONS",
    "SAID",
    "TOTALS",
    "Batch",
    "Client",
    "Clients",
    "Comm",
    "Engine",
    "Examples",
    "Facts",
    "Layout",
    "Learned",
    "Learner",
    "Memory",
    "Passage",
    "Pending",
    "Places",
    "Refused",
    "Rule",
    "State",
    "Strategy",
    "Task",
    "Unfit",
    "Where",
    "entropy",
    "key",
    "keys",
    "losses_of",
]
