"""The data of a run: importers, partitions, and HDF5 shards."""

from fedmpi.data.columns import Columns
from fedmpi.data.errors import ShardError
from fedmpi.data.from_arrays import write_shards
from fedmpi.data.from_importer import deal_options, make
from fedmpi.data.importers import IMPORTERS
from fedmpi.data.partitions import PARTITIONS
from fedmpi.data.store.manifest import SCHEMA
from fedmpi.data.store.shards import ShardSet

__all__ = [
    "IMPORTERS",
    "PARTITIONS",
    "SCHEMA",
    "Columns",
    "ShardError",
    "ShardSet",
    "deal_options",
    "make",
    "write_shards",
]
