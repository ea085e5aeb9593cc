"""Tensors bound to the flat vector: user code's rebinding or replacing of one is seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fedmpi.flat.places import Place, described, places
from fedmpi.job import JobError


class Bound:
    """Tensors of a module bound to a vector: to its `views`, by name.

    `take_over` follows a step of the module's own code: a tensor laid elsewhere is copied in and bound again.
    `restore` drops it instead.  Of the names in `scratch` it is restored, never taken over.
    """

    def __init__(self, model: nn.Module, views: Mapping[str, Tensor], scratch: Collection[str] = ()) -> None:
        entries: list[tuple[Place, Tensor, int, bool]] = []
        bound: dict[str, Tensor] = {}
        owners: dict[str, int] = {}
        for kind, place in list(places(model)):
            view = views.get(place.name)
            if view is None:
                continue
            trained = kind == "parameter"
            if trained:
                place.tensor.data = view
            else:
                # `.data` has a version counter of its own: two buffers of one vector do not disturb each other.
                place.tensor = bound.setdefault(place.name, view.data)
                place.put_back()
            owners[place.name] = owners.get(place.name, 0) + 1
            entries.append((place, view, view.data_ptr(), trained))
        self.shared = {name for name, count in owners.items() if count > 1}
        self.entries = [entry for entry in entries if entry[1].numel()]
        # For the look in every step, as bare as can be.
        self.looks = [
            (place.holder, place.key, place.tensor, at, place, view, trained)
            for place, view, at, trained in self.entries
            if place.name not in scratch
        ]

    def take_over(self) -> None:
        """Copy tensors laid elsewhere by module code into the vector, and bind them again.

        Raises JobError, naming the tensor, for a parameter replaced by another and for a changed shape or type.
        """
        for holder, key, tensor, at, place, view, trained in self.looks:
            now = holder.get(key)
            if now is tensor and tensor.data_ptr() == at:
                continue
            laid = self._fitting(place, now, view, trained)
            with torch.no_grad():
                view.copy_(laid.detach())
            self._bind(place, view, trained)

    def restore(self) -> None:
        """Bind every tensor again, with the vector's values; tensors laid elsewhere by module code are dropped."""
        for place, view, at, trained in self.entries:
            if place.now is not place.tensor or place.tensor.data_ptr() != at:
                self._bind(place, view, trained)

    @staticmethod
    def _bind(place: Place, view: Tensor, trained: bool) -> None:
        place.tensor.data = view if trained else view.data
        place.put_back()

    def _fitting(self, place: Place, now: Any, view: Tensor, trained: bool) -> Tensor:
        """Return the tensor at a place now; JobError where the vector cannot take it."""
        if trained and now is not place.tensor:
            raise JobError(
                f"model: its parameter {place.name!r} was replaced by another while a client trained, and no "
                f"optimiser would know that one; change it in place: with torch.no_grad(): self.{place.key}.copy_(...)"
            )
        kind = "parameter" if trained else "buffer"
        if not isinstance(now, Tensor):
            raise JobError(f"model: its {kind} {place.name!r} became {described(now)}; it should stay a tensor")
        if now.shape != view.shape:
            raise JobError(
                f"model: its {kind} {place.name!r} had the shape {tuple(view.shape)} and has {tuple(now.shape)} after "
                f"a client trained; what is averaged cannot change its shape"
                + ("" if trained else " (register what is no part of the model with persistent=False)")
            )
        if now.dtype != view.dtype and (trained or not now.is_floating_point()):
            raise JobError(f"model: its {kind} {place.name!r} was {view.dtype} and became {now.dtype}; keep its type")
        if place.name in self.shared and now is not place.tensor:
            raise JobError(
                f"model: its {kind} {place.name!r} belongs to several modules, and one of them replaced it; change it "
                f"in place: self.{place.key}.copy_(...)"
            )
        return now
