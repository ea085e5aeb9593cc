"""Partitions by name: rows dealt to clients, as index arrays.

A partition takes any of `y (N,)`, `clients`, `rng` and `groups (N,)`, and returns a list of row indices, one array per
client, or a dict of them by client id.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedmpi.job import Registry

Rows = NDArray[np.int64]
Alpha = Annotated[float, Field(gt=0, description="the smaller, the more clients differ")]

TRIES = 1000  # draws of the class-wise Dirichlet before giving up


def iid(y: NDArray[Any], clients: int, rng: np.random.Generator) -> list[Rows]:
    """Shuffled rows cut in equal parts: sizes differ by one at most."""
    _enough(y, clients, "clients")
    return list(np.array_split(rng.permutation(len(y)), clients))


def shards(
    y: NDArray[Any],
    clients: int,
    rng: np.random.Generator,
    per_client: Annotated[int, Field(ge=1, description="shards that each client gets")] = 2,
) -> list[Rows]:
    """Rows sorted by label, cut into shards, a few of them for each client at random (McMahan et al. 2017).

    McMahan, Moore, Ramage, Hampson, Aguera y Arcas 2017, "Communication-Efficient Learning of Deep Networks from
    Decentralized Data", section 3.  There are clients times `per_client` shards, `per_client` for each client.
    """
    labels = _labels(y)
    _enough(labels, clients * per_client, f"shards, {per_client} (per_client) for each of {clients} clients")
    pieces = np.array_split(np.argsort(labels, kind="stable"), clients * per_client)
    dealt = rng.permutation(len(pieces)).reshape(clients, per_client)
    return [np.concatenate([pieces[piece] for piece in hand]) for hand in dealt]


def labels(
    y: NDArray[Any],
    clients: int,
    rng: np.random.Generator,
    per_client: Annotated[int, Field(ge=1, description="classes that each client holds")] = 2,
) -> list[Rows]:
    """A few classes for each client, each class shared equally by its holders (Li et al. 2022, NIID-Bench).

    Client i holds class i modulo the classes and `per_client` - 1 others.  A class without a holder stays out.  Li,
    Diao, Chen, He 2022, "Federated Learning on Non-IID Data Silos: An Experimental Study", "#C = k" of section IV.
    """
    kinds = np.unique(_labels(y))
    if per_client > len(kinds):
        raise ValueError(f"{per_client} labels per client asked for (per_client), and there are {len(kinds)}")
    held = np.zeros((clients, len(kinds)), dtype=bool)
    for client in range(clients):
        own = client % len(kinds)
        others = np.delete(np.arange(len(kinds)), own)
        held[client, [own, *rng.choice(others, per_client - 1, replace=False)]] = True
    hands: list[list[Rows]] = [[] for _ in range(clients)]
    for place, kind in enumerate(kinds):
        holders = np.flatnonzero(held[:, place])
        rows = rng.permutation(np.flatnonzero(y == kind))
        if 0 < len(rows) < len(holders):
            raise ValueError(f"class {kind} has {len(rows)} examples for {len(holders)} clients; take fewer clients")
        for holder, part in zip(holders, np.array_split(rows, max(1, len(holders))), strict=False):
            hands[holder].append(part)
    return [np.concatenate(hand) for hand in hands]


def dirichlet(
    y: NDArray[Any],
    clients: int,
    rng: np.random.Generator,
    alpha: Alpha = 0.5,
    least: Annotated[int, Field(ge=0, description="examples that each client has at least")] = 10,
) -> list[Rows]:
    """Dirichlet proportions over clients for each class, with varying sizes (Li et al. 2022, NIID-Bench).

    Each class is cut over clients by p ~ Dir(`alpha`), but not to those with N/K examples already; the smaller `alpha`,
    the more clients differ.  Drawn again until every client has `least` examples.  Li, Diao, Chen, He 2022, "Federated
    Learning on Non-IID Data Silos: An Experimental Study" (NIID-Bench), after Yurochkin et al. 2019.
    """
    labels = _labels(y)
    _enough(labels, clients * least, f"examples, {least} (least) for each of {clients} clients")
    per_class = np.bincount(labels)
    for _ in range(TRIES):
        cuts = _cuts(per_class, clients, rng, alpha)
        if np.diff(cuts, axis=1).sum(axis=0).min() >= least:
            break
    else:
        raise ValueError(
            f"none of {TRIES} draws gave each of {clients} clients {least} examples; "
            "take fewer clients, a larger alpha or a smaller least"
        )
    order = np.lexsort((rng.permutation(len(labels)), labels))  # class after class, shuffled within each
    pieces = [
        np.split(order[start : start + count], cut[1:-1])
        for start, count, cut in zip(np.cumsum(per_class) - per_class, per_class, cuts, strict=True)
    ]
    return [np.concatenate(hand) for hand in zip(*pieces, strict=True)]


def _cuts(per_class: Rows, clients: int, rng: np.random.Generator, alpha: float) -> Rows:
    """Return the cuts of each class `(C, K+1)`: client k gets its examples from column k up to column k+1."""
    held = np.zeros(clients, dtype=np.int64)
    cuts = np.zeros((len(per_class), clients + 1), dtype=np.int64)
    for label, count in enumerate(per_class):
        is_open = held < per_class.sum() / clients
        share = rng.dirichlet(np.full(clients, alpha)) * is_open
        if not share.sum() > 0:  # a tiny alpha may leave the open clients a share that underflows
            share = is_open if is_open.any() else np.ones(clients)
        cuts[label, 1:] = np.cumsum(share / share.sum()) * count
        cuts[label, -1] = count  # what rounding would leave over
        held += np.diff(cuts[label])
    return cuts


def dirichlet_client(y: NDArray[Any], clients: int, rng: np.random.Generator, alpha: Alpha = 0.5) -> list[Rows]:
    """Dirichlet proportions over classes for each client, with equal sizes (Hsu et al. 2019).

    Each client draws q ~ Dir(`alpha` * prior) over classes and N // K examples from it, unreplaced; the smaller
    `alpha`, the more clients differ.  An exhausted class is left out and q renormalised.  The N modulo K examples at
    the end go to nobody.  Hsu, Qi, Brown 2019, "Measuring the Effects of Non-Identical Data Distribution for Federated
    Visual Classification", section 3.
    """
    labels = _labels(y)
    _enough(labels, clients, "clients")
    order = np.lexsort((rng.permutation(len(labels)), labels))
    per_class = np.bincount(labels)
    stock, taken = per_class.copy(), np.cumsum(per_class) - per_class
    present = np.flatnonzero(per_class)
    prior = per_class[present] / len(labels)
    dealt = []
    for _ in range(clients):
        q = np.zeros(len(per_class))
        q[present] = rng.dirichlet(alpha * prior)
        wanted, hand = len(labels) // clients, np.zeros_like(stock)
        # What a class cannot give any more is drawn again from the rest: the same as drawing one by one.
        while wanted:
            left = np.where(stock > 0, q, 0.0)
            if not left.sum() > 0:  # every class it drew is exhausted
                left = stock.astype(np.float64)
            drawn = np.minimum(rng.multinomial(wanted, left / left.sum()), stock)
            stock -= drawn
            hand += drawn
            wanted -= int(drawn.sum())
        dealt.append(np.concatenate([order[at : at + count] for at, count in zip(taken, hand, strict=True)]))
        taken += hand
    return dealt


def natural(groups: NDArray[Any] | None, clients: int | None) -> dict[str, Rows]:
    """One client for each value of the client column, in sorted order, with the value as its id."""
    if groups is None:
        raise ValueError("this source has no client column; name it with group, or take another partition")
    names, owner, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if clients not in (None, len(names)):
        raise ValueError(f"the client column holds {len(names)} clients, not {clients}; leave clients out")
    pieces = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    ids = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names]
    if len(set(ids)) < len(ids):
        raise ValueError("the client column holds names that differ in bytes that are no UTF-8 alone")
    return dict(zip(ids, pieces, strict=True))


PARTITIONS: Registry[list[Rows] | dict[str, Rows]] = Registry(
    "partition",
    {
        "iid": iid,
        "shards": shards,
        "labels": labels,
        "dirichlet": dirichlet,
        "dirichlet-client": dirichlet_client,
        "natural": natural,
    },
    given=("y", "clients", "rng", "groups"),
    text=True,
)


def _labels(y: NDArray[Any]) -> Rows:
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise ValueError("deals by class labels, and these targets are none; take iid or natural")
    return y


def _enough(y: NDArray[Any], wanted: int, what: str) -> None:
    if len(y) < wanted:
        raise ValueError(f"{len(y)} examples are too few for {wanted} {what}")
