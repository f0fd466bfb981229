"""Builds `corekernel._dispatcher`, the one C extension of hmk (cffi, API mode)."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = ("wait.c", "client.c", "carrier.c", "bridge.c")

ffibuilder = FFI()
ffibuilder.cdef((HERE / "abi.cdef.h").read_text())
ffibuilder.cdef((HERE / "carrier.cdef.h").read_text())
ffibuilder.cdef(
    """
    extern "Python+C" int64_t hmk_upcall(struct hmk_context *, uint32_t carrier, uint32_t operation,
                                         uint32_t registers, uint32_t length);
    """
)
ffibuilder.set_source(
    "corekernel._dispatcher",
    """
    #include "carrier.h"
    static int64_t hmk_upcall(struct hmk_context *, uint32_t, uint32_t, uint32_t, uint32_t);
    int64_t hmk_python_handler(struct hmk_context *context) {
      return hmk_upcall(context, context->carrier, context->operation, context->registers, context->in_length);
    }
    """.replace("static int64_t hmk_upcall", "extern int64_t hmk_upcall"),
    sources=[str((HERE / name).relative_to(Path.cwd())) if HERE.is_relative_to(Path.cwd()) else str(HERE / name)
             for name in SOURCES],
    include_dirs=[str(HERE)],
    extra_compile_args=["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fno-strict-aliasing"],
    libraries=["pthread"],
)

if __name__ == "__main__":
    ffibuilder.compile(tmpdir=str(HERE.parents[1]), verbose=False)
