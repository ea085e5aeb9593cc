"""What `fedmpi` exports: small, typed, documented, and as the README shows it."""

from __future__ import annotations

import inspect
from importlib.resources import files

import fedmpi


def test_the_names() -> None:
    assert fedmpi.__all__ == ["Refused", "Run", "ShardSet", "__version__", "train", "write_shards"]
    assert dir(fedmpi) == sorted(fedmpi.__all__)
    assert (files("fedmpi") / "py.typed").is_file()


def test_every_one_says_what_it_is_and_is_typed() -> None:
    for name in fedmpi.__all__:
        thing = getattr(fedmpi, name)
        if callable(thing):
            assert len((inspect.getdoc(thing) or "").split()) > 10, name
    for function in (fedmpi.train, fedmpi.write_shards):
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        assert all(given.annotation is not inspect.Parameter.empty for given in signature.parameters.values())


def test_how_a_run_is_called() -> None:
    given = inspect.signature(fedmpi.train).parameters
    assert list(given) == [
        "job",
        "comm",
        "model",
        "task",
        "shards",
        "out",
        "on_round",
        "resume",
        "overwrite",
        "reschedule",
        "profile",
    ]
    assert all(given[name].kind is inspect.Parameter.KEYWORD_ONLY for name in list(given)[2:])
    given = inspect.signature(fedmpi.write_shards).parameters
    assert list(given)[:2] == ["folder", "clients"]
