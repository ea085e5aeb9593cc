"""A strategy, as the engine sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol

from torch import Tensor, nn

from fedmpi.flow.client import Client, Learner
from fedmpi.flow.protocols import Task


class Strategy(Protocol):
    """A local rule and a server step, as the other rooms see them."""

    passes: ClassVar[int]
    fills: ClassVar[bool]
    memory: Mapping[str, str]
    notes: Mapping[str, str]
    records: ClassVar[bool]
    batched: ClassVar[bool]

    @property
    def plain_loop(self) -> bool: ...

    @property
    def plain_loss(self) -> bool: ...

    # Each method is described by the strategy itself.

    def survey(self, client: Client) -> Mapping[str, float]: ...

    def prepare(self, client: Client) -> None: ...

    def learn(self, client: Client, learner: Learner) -> None: ...

    def loss(self, task: Task, model: nn.Module, inputs: Tensor, y: Tensor, client: Client) -> Tensor: ...

    def result(self, client: Client) -> Mapping[str, float]: ...

    def personal(self, client: Client, learner: Learner) -> None: ...
