"""The pipeline of a run's stages at work: what they need of ranks and clients, and what they tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from fedmpi.aggregation.stages import Stage
from fedmpi.flow import Comm, Passage


class Pipeline(list[Stage]):
    """The stages of a run in their order, each under its name in the job."""

    def __init__(self, stages: Iterable[Stage] = (), names: Iterable[str] = ()) -> None:
        super().__init__(stages)
        self.names = tuple(names) or tuple(type(stage).__name__.lower() for stage in self)

    def named(self) -> zip[tuple[str, Stage]]:
        """Return the stages with their names."""
        return zip(self.names, self, strict=True)

    @property
    def exact(self) -> bool:
        """Return whether a stage promises sums of the same bits in every order."""
        return any(stage.place == "integer" for stage in self)

    @property
    def hides(self) -> bool:
        """Return whether nothing may be told of a single client."""
        return any(stage.hides for stage in self)

    @property
    def memory(self) -> dict[str, str]:
        """Return what each client keeps for the stages, with the kind of each."""
        return {name: kind for stage in self for name, kind in stage.memory.items()}

    @property
    def notes(self) -> dict[str, str]:
        """Return the stages' coordinates on the tail, with the weighting of each."""
        return {name: weighting for stage in self for name, weighting in stage.notes.items()}

    @property
    def totals(self) -> dict[str, float]:
        """Return the fixed totals by weighting; {} where the sum is divided by the observed ones."""
        return {name: total for stage in self for name, total in stage.totals.items()}

    @property
    def counters(self) -> tuple[str, ...]:
        """Return the names of what the stages count."""
        return tuple(name for stage in self for name in stage.counters)

    def join(self, comm: Comm, launch: int) -> None:
        """Let the stages of every rank meet.  Collective."""
        for stage in self:
            stage.join(comm, launch)

    def counted(self) -> dict[str, int]:
        """Return what this rank's stages counted since the last call, by name."""
        return {name: number for stage in self for name, number in zip(stage.counters, stage.count(), strict=True)}

    def ledgers(self) -> dict[str, Any]:
        """Return what stages tell of a crossing at home, each under its name; nothing of those with nothing to tell."""
        ledgers = {name: stage.ledger() for name, stage in self.named()}
        return {name: ledger for name, ledger in ledgers.items() if ledger}

    def charges(self, passage: Passage) -> dict[str, Any]:
        """Return what it costs to release a crossing's sum, by stage; {} where it costs nothing."""
        charges = {name: stage.charge(passage) for name, stage in self.named()}
        return {name: charge for name, charge in charges.items() if charge}

    @property
    def keeps(self) -> bool:
        """Return whether a stage has a state from round to round: the same on every rank."""
        return any(owns(stage, "state") for stage in self)

    def state(self) -> dict[str, Tensor]:
        """Return this rank's tensors of all stages for a checkpoint, by stage and name."""
        return {f"{name}.{part}": value for name, stage in self.named() for part, value in stage.state().items()}

    def load(self, states: Sequence[Mapping[str, Tensor]]) -> None:
        """Let the stages go on from states by `state`, of one or several ranks."""
        for name, stage in self.named():
            own = f"{name}."
            parts = [
                {part.removeprefix(own): value for part, value in state.items() if part.startswith(own)}
                for state in states
            ]
            if owns(stage, "load"):
                stage.load([part for part in parts if part])


def owns(stage: Stage, method: str) -> bool:
    """Return whether a stage has a method of its own: the rest do nothing, and need no call."""
    return getattr(type(stage), method) is not getattr(Stage, method) or method in vars(stage)
