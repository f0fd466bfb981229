"""Builds `bench._raw`, the raw ping-pong in C (cffi, API mode).

Run as a script it compiles in place, beside the `bench` package; setuptools uses `ffibuilder` through
setup.py. The declarations below are checked against raw.c by the compiler, so that they cannot drift.
"""

from __future__ import annotations

from pathlib import Path

import cffi

HERE = Path(__file__).resolve().parent

ffibuilder = cffi.FFI()
ffibuilder.cdef(
    """
    size_t raw_bytes(size_t payload);
    void raw_serve(void *memory, size_t payload, int spin);
    size_t raw_measure(void *memory, size_t payload, int spin, const void *in, void *out, uint64_t budget_ns,
                       uint64_t *samples, size_t capacity);
    """
)
ffibuilder.set_source(
    "bench._raw",
    (HERE / "raw.c").read_text(encoding="utf-8"),
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"],
)

if __name__ == "__main__":
    print(ffibuilder.compile(tmpdir=str(HERE.parents[1])))
