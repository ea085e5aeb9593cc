"""FedPer: the last layers stay with each client; the rest is everybody's.

Arivazhagan, Aggarwal, Singh, Choudhary 2019, "Federated Learning with Personalization Layers", algorithms 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from fedmpi.flat import keep_private
from fedmpi.job import JobError
from fedmpi.strategies.drift.representation import last
from fedmpi.strategies.strategy import ServerStep, Strategy


class FedPer(Strategy):
    """A `head` of each client's own, never sent; the other layers are shared (Arivazhagan et al. 2019).

    `head` lists modules by name; the last layer where empty.
    """

    def __init__(self, server: ServerStep, head: tuple[str, ...] = ()) -> None:
        super().__init__(server)
        self.head = head

    def stays(self, model: nn.Module) -> Callable[[str], bool]:
        return heads(model, self.head)


def heads(model: nn.Module, head: tuple[str, ...]) -> Callable[[str], bool]:
    """Return a test of tensor names: those of the modules `head`, or of the last layer where it is empty.

    Raises JobError for a module without trained tensors, or where no other tensor would be left.
    """
    stays = keep_private(head or (last(model),))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    for part in head:
        if not any(map(keep_private((part,)), names)):
            raise JobError(f"strategy.head: {part!r} given; the model has {', '.join(names)}")
    if all(map(stays, names)):
        raise JobError("strategy.head: nothing would be left to share: the model has no other layer that is trained")
    return stays
