"""Every interface by name. Generated from services/interfaces/*.toml by `python -m services.generate`."""

from __future__ import annotations

from typing import Any, Final

from corekernel.errors import NoSuchService
from corekernel.interface import InterfaceInfo
from services.stubs import bench_echo as _bench_echo
from services.stubs import core as _core
from services.stubs import devmgr as _devmgr
from services.stubs import example as _example
from services.stubs import fs as _fs
from services.stubs import hostfs as _hostfs
from services.stubs import memmgr as _memmgr
from services.stubs import procmgr as _procmgr

INTERFACES: Final[dict[str, InterfaceInfo]] = {
    "bench_echo": _bench_echo.INTERFACE,
    "core": _core.INTERFACE,
    "devmgr": _devmgr.INTERFACE,
    "example": _example.INTERFACE,
    "fs": _fs.INTERFACE,
    "hostfs": _hostfs.INTERFACE,
    "memmgr": _memmgr.INTERFACE,
    "procmgr": _procmgr.INTERFACE,
}

_CLIENTS: Final[dict[str, type[Any]]] = {
    "bench_echo": _bench_echo.BenchEchoClient,
    "core": _core.CoreClient,
    "devmgr": _devmgr.DevmgrClient,
    "example": _example.ExampleClient,
    "fs": _fs.FsClient,
    "hostfs": _hostfs.HostfsClient,
    "memmgr": _memmgr.MemmgrClient,
    "procmgr": _procmgr.ProcmgrClient,
}


def client_class(name: str) -> type[Any]:
    """The client of an interface; its constructor takes a `Port`.

    Raises:
        NoSuchService: no interface has this name.
    """
    try:
        return _CLIENTS[name]
    except KeyError:
        raise NoSuchService(f"no interface is called {name!r}") from None
