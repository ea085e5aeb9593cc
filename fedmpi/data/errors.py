"""What can be wrong with shards."""

from __future__ import annotations

from fedmpi.flow import Refused


class ShardError(Refused):
    """A shard set, or a file to make one of, that is not as it should be: names the file, what is wrong, the remedy."""

    code = 1
