"""What is learned: a local rule and a server step, by name."""

from collections.abc import Callable

from fedmpi.strategies.fedavg import FedAvg
from fedmpi.strategies.fedsgd import FedSGD
from fedmpi.strategies.strategy import Server, Strategy

__all__ = ["STRATEGIES", "Server", "Strategy"]

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "fedavg": FedAvg,
    "fedsgd": FedSGD,
}
