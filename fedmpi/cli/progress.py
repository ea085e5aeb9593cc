"""Progress for the person: a live display on a terminal, plain lines elsewhere."""

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

PLAIN = 40  # lines of a long run without a terminal, about
CLIENTS = {"clients": "clients'", "personal": "own model"}  # the owners of scores in words, by the scores' table


def console() -> Console:
    """Return a console for the person's terminal, which a rank under mpirun cannot see itself, or a plain one."""
    size = terminal()
    if size is None:
        return Console(force_terminal=False, highlight=False)
    return Console(force_terminal=True, highlight=False, width=size[0], height=size[1])


class Lines(Bar):
    """A live display with a newline at its end: mpirun passes on whole lines alone."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text("")


class Progress:
    """Display of the rounds of a run, each given by its journal line."""

    def __init__(self, name: str, rounds: int, ranks: int) -> None:
        self.name, self.rounds, self.ranks = name, rounds, ranks
        self.console = console()
        self.began = time.perf_counter()
        self.last: dict[str, Any] | None = None
        self.scores: dict[str, Any] = {}
        self.bar: Bar | None = None

    def round(self, line: dict[str, Any]) -> None:
        """Show the round of one journal line."""
        waiting("")
        self.last = line
        if line.get("evaluation"):
            self.scores = line["evaluation"]
        if not self.console.is_terminal:
            every = max(1, self.rounds // PLAIN)
            if line["round"] % every == 0 or line["round"] == 1 or "stopped" in line:
                print(f"round {line['round']}/{self.rounds}  {self._text(line)}", flush=True)
            return
        if self.bar is None:
            self.bar = Lines(
                TextColumn("[bold]{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
                refresh_per_second=8,
            )
            self.task = self.bar.add_task(self.name, total=self.rounds, completed=line["round"] - 1, text="")
            self.bar.start()
        self.bar.update(self.task, completed=line["round"], text=self._text(line, short=True))

    def _text(self, line: dict[str, Any], short: bool = False) -> str:
        """Return loss, latest scores and seconds in words; where `short`, the leading scores alone."""
        words = []
        if line.get("train_loss") is not None:
            words.append(f"loss {line['train_loss']:.4f}")
        test = [(name, value) for name, value in self.scores.get("test", {}).items() if name != "loss"]
        scores = [f"{name} {value:.4f}" for name, value in test if value is not None][: 1 if short else None]
        for kind, owner in CLIENTS.items():
            for name, spread in self.scores.get(kind, {}).items():
                if short and scores and kind == "clients":
                    break
                if name != "loss" and spread.get("mean") is not None:
                    worst = "" if short else f" (worst tenth {spread['worst_tenth']:.4f})"
                    scores.append(f"{owner} {name} {spread['mean']:.4f}{worst}")
                    break
        words += scores
        seconds = line.get("seconds", {})
        if "total" in seconds:
            words.append(f"{seconds['total']:.3f} s/round")
        return "  ".join(words)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()

    def summary(self, folder: Path, baseline: str | None) -> None:
        """Print the outcome of the run, and the next command."""
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
        for kind, owner in CLIENTS.items():
            for name, spread in self.scores.get(kind, {}).items():
                if spread.get("mean") is not None:
                    values = f"mean {spread['mean']:.4f}, worst tenth {spread['worst_tenth']:.4f}"
                    print(f"  {f'{owner} {name}':<18} {values}")
        print(f"  model in {folder / 'model.safetensors'}")
        if baseline is None:
            print(f"  next: fedmpi report {folder}")
        sys.stdout.flush()


class Work:
    """Display of the work of `fedmpi shard`: lines, and below them a bar on a terminal."""

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

    def line(self, line: str) -> None:
        """Print one line; where it begins a step, its first word becomes the label of the bar."""
        if self.bar is None:
            print(line, flush=True)
            return
        self.console.print(Text(line))
        if line.startswith(("importing", "dealing", "writing")):
            self.bar.reset(self.task, total=None, description=line.split()[0])

    def done(self, rows: int, total: int) -> None:
        """Show how many of all examples are written."""
        if self.bar is not None:
            self.bar.update(self.task, total=total, completed=rows)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()


class Steps:
    """Display of a work of several steps: the one under way, with a clock on a terminal, a line each elsewhere."""

    def __init__(self) -> None:
        self.console = console()
        self.bar: Bar | None = None
        if self.console.is_terminal:
            self.bar = Lines(
                TextColumn("[bold]{task.description}"),
                TimeElapsedColumn(),
                console=self.console,
                refresh_per_second=4,
                transient=True,
            )
            self.task = self.bar.add_task("begin", total=None)
            self.bar.start()

    def next(self, step: str) -> None:
        """Show the next step; "" where there is none."""
        if self.bar is not None:
            self.bar.reset(self.task, total=None, description=step)
        elif step:
            print(step, flush=True)

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()
