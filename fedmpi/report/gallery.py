"""The pictures of a page by its parts, with labels and colours to tell runs apart."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fedmpi.report import pictures
from fedmpi.report.axes import Draw, Units
from fedmpi.report.bars import bar_chart
from fedmpi.report.curves import Curve, line_chart
from fedmpi.report.groups import Group
from fedmpi.report.runs import BASELINES, CLIENTS, MODELS


class Gallery:
    """The pictures of groups of runs, each added to a part of the page under a file name of its own."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.parts: dict[str, list[pictures.Picture]] = {part: [] for part in ("scores", "clients", "cost", "stages")}
        self.alone = len(groups) == 1
        self.single = groups[0].runs[0] if self.alone and len(groups[0].runs) == 1 else None
        self.kinds = [kind for kind in MODELS if any(group.tells("evaluation", kind) for group in groups)] or [
            "clients"
        ]
        self.personal = "personal" in self.kinds
        several = any(len(group.runs) > 1 for group in groups)
        self.seeds = " Band: lowest to highest of the seeds." if several else ""

    def add(self, part: str, title: str, caption: str, show: Draw, height: float = 3.1) -> None:
        """Draw a picture and add it to a part."""
        name = re.sub("[^a-z0-9]+", "-", title.lower()).strip("-")[:60]
        taken = {picture.name for shown in self.parts.values() for picture in shown}
        name = f"{name}-{len(taken)}" if name in taken else name  # metrics with names alike but for capitals
        self.parts[part].append(pictures.picture(name, title, caption, show, height))

    def plot(self, part: str, title: str, caption: str, curves: Sequence[Curve], x: str = "round", **axes: Any) -> None:
        """Add the picture of the curves with a finite value, if there are any."""
        if known := [curve for curve in curves if np.isfinite(curve.y).any()]:
            self.add(part, title, caption, line_chart(known, x=x, **axes))

    def compare(
        self, part: str, title: str, caption: str, rows: Sequence[Mapping[str, float]], x: str, units: Units
    ) -> None:
        """Add a picture with a bar per group, stacked from the values in its row, if the rows have any."""
        names = dict.fromkeys(name for row in rows for name in row)
        layers = {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}
        if layers:
            show = bar_chart([group.label for group in self.groups], layers, x=x, units=units)
            self.add(part, title, caption, show, 1.1 + 0.34 * len(self.groups))

    def rows(self) -> list[tuple[str, Group]]:
        """Return the groups and then their baselines, each with its label."""
        rows = [(self.label(group), group) for group in self.groups]
        for name, group in itertools.product(BASELINES, self.groups):
            if base := group.baseline(name):
                rows.append((self.baseline_label(name, base), base))
        return rows

    def label(self, group: Group) -> str:
        """Return a group's label: "federated" where it is alone."""
        return "federated" if self.alone else group.label

    def baseline_label(self, name: str, base: Group) -> str:
        """Return the label of a baseline group, by its kind alone where there is one group."""
        return f"{name} baseline" if self.alone else base.label

    def curves(self, *path: str, baselines: bool = True, over: str = "") -> list[Curve]:
        """Return the curve of each group, with those of its baselines behind it."""
        curves = []
        for index, group in enumerate(self.groups):
            curves.append(group.curve(*path, over=over, colour=index, label=self.label(group)))
            curves += self._baselines(index, group, *path) if baselines else []
        return curves

    def clients(self, kinds: Sequence[str], metric: str, word: str, over: str = "") -> list[Curve]:
        """Return the curves of clients' scores by these kinds of model.

        A run without own models shows its common one beside the others' own.
        """
        curves = []
        for kind, (index, group) in itertools.product(kinds, enumerate(self.groups)):
            shown = kind if self.alone or group.tells("evaluation", kind) else "clients"
            label = f"{group.label}, {MODELS[shown]}" if self.personal else group.label
            if self.alone:
                label = MODELS[kind] if self.personal else "federated"
            colour = list(MODELS).index(kind) if self.alone else index
            curves.append(group.curve("evaluation", shown, metric, word, over=over, colour=colour, label=label))
        return curves

    def clients_baselines(self, metric: str, word: str) -> list[Curve]:
        """Return the curves of the baselines' scores by client."""
        groups = enumerate(self.groups)
        return [curve for at, group in groups for curve in self._baselines(at, group, *CLIENTS, metric, word)]

    def _baselines(self, index: int, group: Group, *path: str) -> list[Curve]:
        """Return the curves of a group's baselines; `index` is the group's place."""
        curves = []
        for place, (name, dash) in enumerate(BASELINES.items(), 2):
            if base := group.baseline(name):
                colour = place if self.alone else index
                curves.append(base.curve(*path, colour=colour, dash=dash, label=self.baseline_label(name, base)))
        return curves
