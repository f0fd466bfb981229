"""Operations on the namespace as a whole: mounts, and the path of an open file."""

from __future__ import annotations

import errno
import json

from corekernel.errors import ServiceError
from corekernel.port import Caller
from services.fs.descriptions import DEVICE, VOLUME
from services.fs.filesystem import FileSystem
from services.fs.journal import Request
from services.fs.volume import Answers, Remote


class Namespace(FileSystem):
    """mount, umount, the table of mounts, getcwd."""

    def _owner_only(self, caller: Caller) -> None:
        if caller.uid not in (0, self._environment.owner):
            raise ServiceError(errno.EPERM)

    def mount(self, caller: Caller, request: int, kind: str, paths: memoryview) -> None:
        """See the interface."""
        self._owner_only(caller)
        path = bytes(paths)

        def operation(asked: Request, answers: Answers) -> None:
            node = self.place(caller, -1, path, True, answers).existing()
            if isinstance(node, Remote):
                raise ServiceError(errno.EBUSY if not node.path else errno.EROFS)
            if not node.is_directory:
                raise ServiceError(errno.ENOTDIR)
            self._mounts.mount(kind, node, self.path(node), asked)

        self.once(caller, request, operation)

    def unmount(self, caller: Caller, request: int, path: memoryview) -> None:
        """See the interface."""
        self._owner_only(caller)
        flat = bytes(path)

        def operation(asked: Request, answers: Answers) -> None:
            node = self.place(caller, -1, flat, True, answers).existing()
            if not isinstance(node, Remote) or node.path:
                raise ServiceError(errno.EINVAL)
            if any(d.kind == VOLUME and d.mount == node.volume.number for d in self._open):
                raise ServiceError(errno.EBUSY)
            self._mounts.unmount(node.volume, asked)

        self.once(caller, request, operation)

    def mounts(self, caller: Caller) -> bytes:
        """See the interface."""
        with self._lock:
            return json.dumps(self._mounts.table()).encode()

    def path_of(self, caller: Caller, descriptor: int) -> bytes:
        """See the interface; a file on the device is found by searching its directory upwards, directories only."""

        def operation(answers: Answers) -> bytes:
            description = self._open.get(caller.client, descriptor).description
            if description.kind == DEVICE:
                raise ServiceError(errno.ENOENT)
            if description.kind == VOLUME:
                return self._shown(description)
            return self.path(self._store.inode(description.file))

        return self.run(caller, operation)
