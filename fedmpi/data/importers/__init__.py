"""Importers by name: functions of their options and `rng` that return Columns."""

from __future__ import annotations

from fedmpi.data.columns import Columns
from fedmpi.data.importers.archive import npz
from fedmpi.data.importers.bundled import breast_cancer, diabetes, digits, iris, wine
from fedmpi.data.importers.generated import linear
from fedmpi.data.importers.idx import idx
from fedmpi.data.importers.table import csv
from fedmpi.job import Registry

IMPORTERS: Registry[Columns] = Registry(
    "importer",
    {
        "digits": digits,
        "breast_cancer": breast_cancer,
        "iris": iris,
        "wine": wine,
        "diabetes": diabetes,
        "idx": idx,
        "npz": npz,
        "csv": csv,
        "linear": linear,
    },
    given=("rng",),
    of=Columns,
    text=True,
)
