"""Operations on noted changes."""

from __future__ import annotations

import errno

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.fs.filesystem import FileSystem


class Watching(FileSystem):
    """inotify ground."""

    def watch(self, caller: Caller, request: int, mask: int, path: memoryview) -> int:
        """See the interface."""
        raise ServiceError(errno.ENOSPC)

    def unwatch(self, caller: Caller, request: int, number: int) -> None:
        """See the interface."""
        raise ServiceError(errno.EINVAL)

    def changes(self, caller: Caller, request: int, wait: bool) -> bytes:
        """See the interface."""
        raise ServiceError(errno.EINVAL)
