"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.text import Text

from fedmpi.launch import terminal, waiting

PLAIN = 40  # plain lines of a long run, about
CLIENTS = {"clients": "clients'", "personal": "own model"}  # whose scores a line tells, by its table


def console() -> Console:
    """The console of the person who started the run, which under mpirun is not what this rank sees."""
    size = terminal()
    if size is None:
        return Console(force_terminal=False, highlight=False)
    return Console(force_terminal=True, highlight=False, width=size[0], height=size[1])


class Lines(Bar):
    """A live display that ends in a newline: mpirun passes on whole lines alone."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text("")


class Progress:
    """Rounds as they are told; `round` is given each journal line."""

    def __init__(self, name: str, rounds: int, ranks: int) -> None:
        self.name, self.rounds, self.ranks = name, rounds, ranks
        self.console = console()
        self.began = time.perf_counter()
        self.last: dict[str, Any] | None = None
        self.scores: dict[str, Any] = {}
        self.bar: Bar | None = None
        self.finished = False

    def round(self, line: dict[str, Any]) -> None:
        """Show one line."""
        waiting("")
        self.last = line
        if line.get("evaluation"):
            self.scores = line["evaluation"]
        if not self.console.is_terminal:
            every = max(1, self.rounds // PLAIN)
            if line["round"] % every == 0 or line["round"] == 1 or "stopped" in line:
                print(f"round {line['round']}/{self.rounds}  {self._told(line)}", flush=True)
            return
        if self.bar is None:
            self.bar = Lines(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[told]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=8,
            )
            self.task = self.bar.add_task(self.name, total=self.rounds, completed=line["round"] - 1, told="")
            self.bar.start()
        self.bar.update(self.task, completed=line["round"], told=self._told(line, short=True))

    def _told(self, line: dict[str, Any], short: bool = False) -> str:
        words = []
        if line.get("train_loss") is not None:
            words.append(f"loss {line['train_loss']:.4f}")
        scores = [(name, value) for name, value in self.scores.get("test", {}).items() if name != "loss"]
        told = [f"{name} {value:.4f}" for name, value in scores if value is not None][: 1 if short else None]
        for kind, whose in CLIENTS.items():
            for name, spread in self.scores.get(kind, {}).items():
                if short and told and kind == "clients":
                    break
                if name != "loss" and spread.get("mean") is not None:
                    worst = "" if short else f" (worst tenth {spread['worst_tenth']:.4f})"
                    told.append(f"{whose} {name} {spread['mean']:.4f}{worst}")
                    break
        words += told
        seconds = line.get("seconds", {})
        if "total" in seconds:
            words.append(f"{seconds['total']:.3f} s/round")
        return "  ".join(words)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()

    def told(self, folder: Path, baseline: str | None) -> None:
        """The last word: what came of it, and what to do next."""
        if self.last is None:
            print(f"{folder}: nothing was left to do", flush=True)
            return
        line, rounds = self.last, self.last["round"]
        spent = line.get("seconds", {}).get("elapsed", time.perf_counter() - self.began)
        who = f"{baseline} baseline" if baseline else f"{self.ranks} rank{'s' * (self.ranks > 1)}"
        print(
            f"{self.name}: {rounds} round{'s' * (rounds != 1)} in {spent:.1f} s on {who}; ended: {line.get('stopped')}"
        )
        for name, value in self.scores.get("test", {}).items():
            if value is not None:
                print(f"  {f'test {name}':<18} {value:.4f}")
        for kind, whose in CLIENTS.items():
            for name, spread in self.scores.get(kind, {}).items():
                if spread.get("mean") is not None:
                    told = f"mean {spread['mean']:.4f}, worst tenth {spread['worst_tenth']:.4f}"
                    print(f"  {f'{whose} {name}':<18} {told}")
        print(f"  model in {folder / 'model.safetensors'}")
        if baseline is None:
            print(f"  next: fedmpi report {folder}")
        sys.stdout.flush()


class Work:
    """What `fedmpi shard` is at: a bar on a terminal, below what is told; plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = console()
        self.bar: Bar | None = None
        if self.console.is_terminal:
            self.bar = Lines(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                TimeElapsedColumn(),
                console=self.console,
                refresh_per_second=8,
                transient=True,
            )
            self.task = self.bar.add_task("begin", total=None)
            self.bar.start()

    def told(self, line: str) -> None:
        """A line of words; one that says what begins is what the bar is about, until the next."""
        if self.bar is None:
            print(line, flush=True)
            return
        self.console.print(Text(line))
        if line.startswith(("importing", "dealing", "writing")):
            self.bar.reset(self.task, total=None, description=line.split()[0])

    def done(self, rows: int, total: int) -> None:
        """How many of all examples are written."""
        if self.bar is not None:
            self.bar.update(self.task, total=total, completed=rows)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
