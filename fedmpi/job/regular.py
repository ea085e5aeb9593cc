"""The check of a path before it is opened: it must be a regular file."""

from __future__ import annotations

import errno
import os
import stat

from fedmpi.flow import Where


def regular(path: Where, most: int | None = None) -> None:
    """Raise OSError where a path is no regular file, or one of more than `most` bytes.

    A device or a pipe must not even be opened: it might never end, or never begin.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    if most is not None and status.st_size > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, more than {most:,}")
