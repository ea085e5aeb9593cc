"""Several clients at once, as rows of one recorded step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import nn

from fedmpi.flat import FlatModel
from fedmpi.flow import Clients, Examples, Layout, Learned, Memory, Passage, Places, State, losses_of
from fedmpi.training.batched.many import Many
from fedmpi.training.batched.rows import Parted, Unbatched, unbatched
from fedmpi.training.course import Course
from fedmpi.training.traced import Traced
from fedmpi.training.traced.single import Recorded

FEW, MOST = 5, 32  # clients at once, where the job does not say
BYTES = 2**27  # of all models at once: larger ones leave the cache, and gain nothing


def one_by_one(course: Course, model: nn.Module) -> str | None:
    """Return why clients of such a job train one by one; None where several do at once."""
    if not course.strategy.batched or not course.strategy.plain_loss:
        return "the strategy says so"
    if losses_of(course.task) is None:
        return "the task has no losses of single examples"
    if course.local.remainder == "merge" or not course.local.batch:
        return "batches are of many sizes"
    if any(buffer is not None for buffer in model.buffers()):
        return "the model has buffers"
    return unbatched(model)


class Batched(Traced):
    """Up to `clients` at once, as rows of one recorded step; one by one, traced, where a model or method needs that.

    The number of rows follows from the job alone, and missing clients are padded, so that a client's bits depend on
    no other client.
    """

    counters: ClassVar[tuple[str, ...]] = (*Traced.counters, "alone")  # clients whose rows could not be recorded

    def __init__(
        self,
        course: Course,
        flat: FlatModel,
        layout: Layout,
        state: State,
        examples: Examples,
        memory: Memory | None = None,
        staged: bool = False,
        keeps: Mapping[str, str] | None = None,
        cohort: int = 1,
        fuse: bool = True,
        clients: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        super().__init__(course, flat, layout, state, examples, memory, staged, keeps, fuse)
        self.reason = one_by_one(course, flat.model)
        room = max(1, BYTES // (4 * layout.width * layout.dtype.itemsize))
        wanted = clients if clients is not None else max(FEW, min(MOST, -(-cohort // 8)))
        wanted = min(wanted, cohort, room)
        self.count = -(-cohort // -(-cohort // wanted))  # groups of nearly one size
        self.many: Many | None = None
        self.last: tuple[Clients | None, list[list[int]]] = None, []  # the last cohort and its groups
        self.alone, self.failed = 0, False

    def counted(self) -> dict[str, int]:
        """Return this rank's counters since the last call."""
        alone, self.alone = self.alone, 0
        return super().counted() | {"alone": alone}

    def groups(self, clients: Clients) -> list[list[int]]:
        """Return places among `clients` in groups that train together, which a deal keeps whole."""
        if self.reason is not None or self.count == 1:
            return [[place] for place in range(len(clients))]
        if clients is not self.last[0]:  # asked for by the deal, and again by the training
            self.last = clients, self._cut(np.arange(len(clients)), self.single.examples.sizes(clients))
        return self.last[1]

    def _cut(self, places: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[list[int]]:
        """Cut places into groups of like numbers of steps; `sizes` are their clients' examples."""
        course, strategy = self.single.course, self.single.strategy
        steps = np.array([course.steps(int(size)) for size in sizes])
        alike = not (strategy.plain_loop and self.single.optimizer.plain)  # all must take the same steps
        groups: list[list[int]] = []
        kind: tuple[int, ...] | None = None
        for at in np.lexsort((places, sizes, -steps)).tolist():
            own = (int(sizes[at]),) if alike or not sizes[at] else ()
            if kind != own or len(groups[-1]) == self.count or not sizes[at]:
                groups.append([])
                kind = own
            groups[-1].append(int(places[at]))
        return groups

    def train(self, places: Places, passage: Passage) -> Iterator[Learned]:
        if not len(places):
            return
        strategy = self.single.strategy
        left = set(places.tolist())
        if self.reason is None and self.count > 1 and self.state.crossing + 1 == strategy.passes:
            self.single.chance.expect(passage.round, passage.clients[places])
            for group in self._groups(left, passage):
                learned = self._together(group, passage)
                if learned is None:
                    break
                left -= set(group)
                yield learned
        if left:
            self.alone += len(left) if self.failed else 0
            yield from super().train(np.array([place for place in places.tolist() if place in left]), passage)

    def _groups(self, left: set[int], passage: Passage) -> list[list[int]]:
        """Return the groups to train at once among `left`: those that were dealt whole, and what makes others.

        Where clients stay with their ranks, groups were not dealt whole.
        """
        whole = [group for group in self.groups(passage.clients) if left.issuperset(group)]
        rest = np.array(sorted(left - {place for group in whole for place in group}), np.int64)
        whole += self._cut(rest, passage.examples[rest])
        return [group for group in whole if passage.examples[group].all()]

    def _together(self, group: Sequence[int], passage: Passage) -> Learned | None:
        """Train a group; None where the model cannot be trained so, from here on."""
        self.begin()
        assert isinstance(self.single, Recorded)
        if self.many is None:
            self.many = Many(self.single, self.count)
        many = self.many
        try:
            rows = many.learn(passage, group)
        except Unbatched as unbatched:
            self.single.parted += isinstance(unbatched, Parted)
            self.reason, self.many, self.failed = str(unbatched), None, True
            return None
        count = len(group)
        keeps = many.keepsakes.shape[1] > 0
        return Learned(
            np.array(group),
            many.wire[:count],
            np.array([row.examples for row in rows]),
            np.array([row.steps for row in rows]),
            np.array([row.loss for row in rows]),
            self.single.flat.whole.received.new_zeros(count, 0),
            {name: part[:count] for name, part in many.staged.items()},
            many.keepsakes[:count] if keeps else None,
        )
