"""The rows of each client, checked, split into training and held-out ones, and cut into files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmpi.job import JobError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class ClientRows:
    """Rows by client: client k has `rows[offsets[k] : offsets[k + 1]]`."""

    rows: Rows
    offsets: Rows


def hands(dealt: object, name: str, examples: int, clients: int | None) -> tuple[list[str], list[Rows]]:
    """Return clients' ids, and the rows of each, from the deal of the partition `name` over so many `examples`.

    A row may be left over, but has one owner at most.  JobError for a wrong deal, or one not to `clients` (None: any
    number).
    """
    if isinstance(dealt, Mapping):
        ids, given = [str(client) for client in dealt], list(dealt.values())
    elif isinstance(dealt, (list, tuple)) or (isinstance(dealt, np.ndarray) and dealt.ndim == 2):
        width = len(str(len(dealt) - 1))
        ids, given = [f"client-{client:0{width}}" for client in range(len(dealt))], list(dealt)
    else:
        wanted = "should give a list of row numbers, an array for each client, or a dict of them by client id"
        raise JobError(f"partition: {name} gave a {type(dealt).__name__}; it {wanted}")
    if not given or clients not in (None, len(given)):
        raise JobError(f"partition: {name} dealt to {len(given)} clients, where {clients or 'some'} are asked for")
    rows_of = [
        _hand(f"partition: {name}: client {client!r}", hand, examples) for client, hand in zip(ids, given, strict=True)
    ]
    owner = np.full(examples, -1, dtype=np.int64)
    for client, rows in enumerate(rows_of):
        taken = rows[owner[rows] >= 0]
        repeated = rows[np.setdiff1d(np.arange(len(rows)), np.unique(rows, return_index=True)[1])]
        if len(taken) or len(repeated):
            row = int((taken if len(taken) else repeated)[0])
            other = f"to client {ids[owner[row]]!r} too" if len(taken) else "twice"
            raise JobError(
                f"partition: {name}: dealt row {row} to client {ids[client]!r}, and {other}; a row has one owner"
            )
        owner[rows] = client
    return ids, rows_of


def _hand(where: str, hand: Any, examples: int) -> Rows:
    """Return one client's row numbers `(n,)` as int64; JobError where they are none, or out of range."""
    try:
        rows = np.asarray(hand)
    except ValueError:
        rows = np.empty(0, dtype=object)
    if rows.shape == (0,) and rows.dtype.kind == "f":
        return np.empty(0, dtype=np.int64)  # an empty list is no float
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        remedy = "; a mask: np.flatnonzero makes rows of it" if rows.dtype.kind == "b" else ""
        kind = (
            f"{rows.dtype} of shape {rows.shape}"
            if isinstance(hand, (np.ndarray, list, tuple))
            else type(hand).__name__
        )
        raise JobError(f"{where} was dealt {kind}; should be row numbers, integers of shape (n,){remedy}")
    if len(rows) and (rows.min() < 0 or rows.max() >= examples):
        row = rows.min() if rows.min() < 0 else rows.max()
        raise JobError(f"{where} was dealt row {row}; there are rows 0 to {examples - 1}")
    return rows.astype(np.int64, copy=False)


def split(rows: Rows, sizes: Rows, fraction: float, rng: np.random.Generator) -> tuple[ClientRows, ClientRows]:
    """Split rows `(N,)` of clients with `sizes (K,)`, client after client, into training and held-out ones.

    A client holds out `fraction` of its examples, drawn at random, rounded, but never its last one.  Rows stay in the
    order of their source within a client.
    """
    owner = np.repeat(np.arange(len(sizes)), sizes)
    held_out = np.clip(np.rint(sizes * fraction).astype(np.int64), 0, np.maximum(sizes - 1, 0))
    drawn = np.lexsort((rng.random(len(rows)), owner))  # each client's places, shuffled
    rank = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    aside = np.zeros(len(rows), dtype=np.bool_)
    aside[drawn[rank < held_out[owner]]] = True
    ordered = np.lexsort((rows, owner))
    rows, aside = rows[ordered], aside[ordered]
    return ClientRows(rows[~aside], offsets(sizes - held_out)), ClientRows(rows[aside], offsets(held_out))


def offsets(sizes: Rows | Sequence[int]) -> Rows:
    """Return the starts of consecutive ranges of `sizes (K,)`, and the end of the last: `(K+1,)`."""
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def cuts(bounds: Rows, files: int) -> list[int]:
    """Return the first client of each file, and K: files hold at least one client and about as many examples each."""
    clients = len(bounds) - 1
    wanted = bounds[-1] * np.arange(1, files) / files
    nearest = np.searchsorted((bounds[:-1] + bounds[1:]) / 2, wanted)
    firsts = [0, *nearest.tolist(), clients]
    for place in range(1, files):
        firsts[place] = min(max(firsts[place], firsts[place - 1] + 1), clients - (files - place))
    return firsts
