"""The error of shard sets and of their sources."""

from __future__ import annotations

from fedmpi.flow import Refused


class ShardError(Refused):
    """A fault of a shard set, or of a file to make one of: names the file, the fault, the remedy."""

    code = 1
