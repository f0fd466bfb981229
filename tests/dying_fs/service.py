"""The file system, but `stat` of "/.die-N" has it die at the N-th line of its own code in the next operation.

So a test can kill it at every step of an operation there is, whatever the operation looks like. The file "/.lived" is
there once an operation has come through with its N lines unspent.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import services.fs.service
from corekernel.errors import ServiceError
from corekernel.port import Caller, Handler, Payload, Registers, Reply
from services.fs.filesystem import STATE as STATE
from services.stubs.fs import FsOperation

_CODE = str(Path(services.fs.service.__file__).parent)
_ARM = b"/.die-"


class Service(services.fs.service.Service):
    """See the module."""

    _lines = 0
    _finished = False

    def stat(self, caller: Caller, directory: int, flags: int, path: memoryview) -> bytes:
        """See the module."""
        flat = bytes(path)
        if flat == b"/.lived":
            if not self._finished:
                raise ServiceError(2)
            return super().stat(caller, directory, flags, memoryview(b"/"))
        if flat.startswith(_ARM):
            self._lines, self._finished = int(flat.removeprefix(_ARM)), False
            return super().stat(caller, directory, flags, memoryview(b"/"))
        return super().stat(caller, directory, flags, path)

    def handlers(self) -> dict[int, Handler]:
        """The handlers; an armed one runs traced."""
        return {
            number: handler if number == FsOperation.STAT else self._traced(handler)
            for number, handler in super().handlers().items()
        }

    def _traced(self, handler: Handler) -> Handler:
        def serve(caller: Caller, registers: Registers, payload: Payload) -> Reply:
            if not self._lines:
                return handler(caller, registers, payload)
            sys.settrace(self._trace)
            try:
                return handler(caller, registers, payload)
            finally:
                sys.settrace(None)
                self._lines, self._finished = 0, True

        return serve

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        return self._count if frame.f_code.co_filename.startswith(_CODE) else None

    def _count(self, frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        if event == "line":
            self._lines -= 1
            if self._lines == 0:
                signal.pthread_kill(threading.get_ident(), signal.SIGKILL)  # the filter lets it signal itself
                threading.Event().wait()
        return self._count
