"""Builds `corekernel._dispatcher`, the one C extension of hmk (cffi, API mode)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = (
    "wait.c",
    "client.c",
    "handler.c",
    "gate.c",
    "placement.c",
    "carrier.c",
    "poller.c",
    "pool.c",
    "core.c",
    "echo.c",
    "python.c",
)

ffibuilder = FFI()
ffibuilder.cdef((HERE / "abi.cdef.h").read_text())
ffibuilder.cdef((HERE / "carrier.cdef.h").read_text())
ffibuilder.set_source(
    "corekernel._dispatcher",
    '#include "carrier.h"',
    sources=[str(HERE.relative_to(Path.cwd()) / name) for name in SOURCES],
    include_dirs=[str(HERE)],
    extra_compile_args=[
        "-O2",
        "-std=gnu11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fno-strict-aliasing",
        "-fvisibility=hidden",
    ],
    libraries=["pthread"],
    py_limited_api=False,
)
