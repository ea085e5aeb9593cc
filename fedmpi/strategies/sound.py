"""The check of a strategy's traits against each other and its methods: one of a person's own may contradict itself."""

from __future__ import annotations

from fedmpi.job import JobError, nearest
from fedmpi.strategies.strategy import Strategy

WEIGHTINGS = ("job", "examples", "uniform", "none")
MEMORIES = ("model", "trained", "scalar")


def sound(strategy: Strategy, name: str) -> Strategy:
    """Return the strategy `name` of a job; JobError names a contradiction in its traits."""
    kind = type(strategy)
    up: object = strategy.up
    if not isinstance(up, tuple) or not up:
        raise JobError(f"strategy: {name} has up = {up!r}; it should be a tuple of weightings, as in ('job',)")
    words: list[tuple[str, str, tuple[str, ...]]] = [("up", word, WEIGHTINGS) for word in strategy.up]
    words += [(f"sums[{key!r}]", word, WEIGHTINGS) for key, word in strategy.sums.items()]
    for kind_of in ("memory", "notes"):
        words += [(f"{kind_of}[{key!r}]", word, MEMORIES) for key, word in getattr(strategy, kind_of).items()]
    for where, word, known in words:
        if word not in known:
            raise JobError(
                f"strategy: {name} has {where} = {word!r}; there are {', '.join(known)}{nearest(word, known)}"
            )
    for trait in ("down", "passes", "models"):
        number = getattr(strategy, trait)
        if not isinstance(number, int) or number < 1:
            raise JobError(f"strategy: {name} has {trait} = {number!r}; it should be a number of at least 1")
    if strategy.models > strategy.down:
        raise JobError(f"strategy: {name} has {strategy.models} models and {strategy.down} planes down for them")
    if strategy.alone and strategy.memory.get("own") != "model":
        raise JobError(f"strategy: {name} has alone = True, but its memory holds no model named 'own'")
    if hasattr(strategy, "settle"):  # earlier versions called it, and an own one would now be passed over
        raise JobError(f"strategy: {name} has a method `settle`, which is not called: let `check` return that job")
    for method, trait, needed in (
        ("survey", "passes", strategy.passes > 1),
        ("correct", "corrects", strategy.corrects),
    ):
        own = getattr(kind, method) is not getattr(Strategy, method) or method in vars(strategy)
        if needed != own:
            value = getattr(strategy, trait)
            raise JobError(
                f"strategy: {name} has {trait} = {value!r}, but its {method} "
                f"{'would never be called' if own else 'is that of plain averaging, which does nothing'}"
            )
    return strategy
