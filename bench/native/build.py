"""Builds `bench._raw`, the loops of the benchmark that are in C (cffi, API mode).

Two files, compiled as one: `raw.c`, ping-pong over shared memory, and `hmk_client.c`, which calls hmk's services
and brings its own copy of the dispatcher's client half, as every program with a C client does. A third, `steps.c`,
runs the steps of a call one by one, and needs the service half too. setup.py builds `ffibuilder`. The
declarations below are checked against the sources by the compiler, so that they cannot drift.
"""

from __future__ import annotations

import os
from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent
DISPATCHER = HERE.parents[1] / "corekernel" / "native"
CLIENT_HALF = ("wait.c", "client.c")
SERVICE_HALF = ("handler.c", "gate.c", "placement.c", "echo.c")  # carrier.c is part of steps.c

ffibuilder = cffi.FFI()
ffibuilder.cdef(
    """
    size_t raw_bytes(size_t payload);
    void raw_serve(void *memory, size_t payload, int spin);
    size_t raw_measure(void *memory, size_t payload, int spin, const void *in, void *out, uint64_t budget_ns,
                       uint64_t *samples, size_t capacity);

    struct bench_call {
      uintptr_t link;
      uint32_t operation;
      uint32_t registers;
      uint64_t argument;
      const void *in;
      void *out;
      uint32_t length;
      int64_t status;
    };
    size_t bench_link_bytes(void);
    size_t bench_calls(struct bench_call *call, uint64_t budget_ns, uint64_t *samples, size_t capacity);
    size_t bench_paced(struct bench_call *call, uint64_t first_ns, uint64_t period_ns, uint64_t end_ns,
                       uint64_t *samples, size_t capacity);
    """
)
ffibuilder.cdef((HERE / "steps.cdef.h").read_text(encoding="utf-8"))
ffibuilder.set_source(
    "bench._raw",
    "".join((HERE / name).read_text(encoding="utf-8") for name in ("raw.c", "hmk_client.c", "steps.cdef.h")),
    sources=[
        os.path.relpath(HERE / "steps.c"),
        *(os.path.relpath(DISPATCHER / name) for name in (*CLIENT_HALF, *SERVICE_HALF)),
    ],
    include_dirs=[str(DISPATCHER), str(HERE)],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"],
)
