"""The strategies of the heart-disease benchmark as one NumPy loop over logistic regression, which fedmpi must equal.

FedAvg: McMahan et al. 2017, algorithm 1.  FedProx: Li et al. 2020, "Federated Optimization in Heterogeneous Networks",
algorithm 2.  SCAFFOLD: Karimireddy et al. 2020, algorithm 1, option II.  FedAdagrad, FedAdam and FedYogi: Reddi et al.
2021, "Adaptive Federated Optimization", algorithm 2, from v = tau^2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Rows = NDArray[np.int64]
Order = Callable[[int, int, int], Sequence[Rows]]  # (round, client, examples): the rows of each of its batches


def federate(
    start: Vector,
    clients: Sequence[tuple[Vector, Vector]],
    order: Order,
    *,
    strategy: str,
    options: Mapping[str, float],
    rounds: int,
    lr: float,
    server_lr: float,
) -> Vector:
    """The model `(features + 1,)`, its bias last, after so many rounds in which all clients take part.

    `clients` hold x `(n, features)` and y `(n,)` of 0 and 1; updates weigh by n, and so do SCAFFOLD's controls.
    """
    model = start.copy()
    shares = np.array([len(y) for _, y in clients]) / sum(len(y) for _, y in clients)
    control, controls = np.zeros_like(model), np.zeros((len(clients), len(model)))
    momentum, second = np.zeros_like(model), np.full_like(model, options.get("tau", 0.0) ** 2)
    for round in range(1, rounds + 1):
        updates, learnt = np.zeros_like(controls), np.zeros_like(controls)
        for client, (x, y) in enumerate(clients):
            batches = order(round, client, len(y))
            local = model.copy()
            for rows in batches:
                slope = gradient(local, x[rows], y[rows])
                if strategy == "fedprox":
                    slope += options["mu"] * (local - model)
                elif strategy == "scaffold":
                    slope += control - controls[client]
                local -= lr * slope
            updates[client] = local - model
            learnt[client] = controls[client] - control - updates[client] / (len(batches) * lr)
        mean = shares @ updates
        if strategy in SECOND:
            momentum = options["beta1"] * momentum + (1 - options["beta1"]) * mean
            second = SECOND[strategy](second, mean**2, options.get("beta2", 0.0))
            model += server_lr * momentum / (np.sqrt(second) + options["tau"])
        else:
            model += server_lr * mean
        control = control + shares @ (learnt - controls)
        controls = learnt
    return model


def gradient(model: Vector, x: Vector, y: Vector) -> Vector:
    """Gradient `(features + 1,)` of the mean binary cross-entropy of a batch."""
    error = 1 / (1 + np.exp(-(x @ model[:-1] + model[-1]))) - y
    return np.append(error @ x, error.sum()) / len(y)


# The second moment from the one before and the square of the mean update: lines 13, 14 and 15 of algorithm 2.
SECOND: dict[str, Callable[[Vector, Vector, float], Vector]] = {
    "fedadagrad": lambda second, square, beta2: second + square,
    "fedyogi": lambda second, square, beta2: second - (1 - beta2) * square * np.sign(second - square),
    "fedadam": lambda second, square, beta2: beta2 * second + (1 - beta2) * square,
}
