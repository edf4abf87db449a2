"""Memory by address, for compiled kernels.

Passing an array to a small function costs more than the work on a short piece of text,
so the kernels pass addresses. Whoever calls a kernel keeps the arrays alive. A word is
8 bytes; the first byte in memory is its lowest, as on every common processor.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from cort33x_lib.files import digest

BYTE, HALF, WORD = ir.IntType(8), ir.IntType(32), ir.IntType(64)
inlined = njit(nogil=True, error_model="numpy", forceinline=True)


def kernel(function: Callable) -> Callable:
    """Compile a function when it is first called, and keep that for later processes.

    numba would use what it kept until the function's own file changes; here, until
    any file of the compiled path does, as their functions are inlined in one another.
    """
    compiled = njit(cache=True, nogil=True, error_model="numpy")(function)
    compiled._cache._cache_file._source_stamp = _stamp()
    return compiled


@cache
def _stamp() -> str:
    files = sorted(Path(__file__).parent.glob("compiled_*.py"))
    return digest(b"".join(file.read_bytes() for file in files))


def _reader(width: ir.IntType, kind: types.Integer):
    @intrinsic
    def load(typing, address):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], width.as_pointer())
            found = builder.load(pointer, align=1)
            return found if width is WORD else builder.zext(found, WORD)

        return kind(types.int64), generate

    return load


def _writer(width: ir.IntType):
    @intrinsic
    def store(typing, address, value):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], width.as_pointer())
            value = arguments[1]
            value = value if width is WORD else builder.trunc(value, width)
            builder.store(value, pointer, align=1)

        return types.void(types.int64, types.uint64), generate

    return store


load_byte = _reader(BYTE, types.int64)
load_half = _reader(HALF, types.int64)
load_word = _reader(WORD, types.uint64)
store_half = _writer(HALF)
store_word = _writer(WORD)


@intrinsic
def zeros_below(typing, word):
    """How many bits of a word are 0 below its lowest 1; 64 if all are."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.IntType(1)(0))

    return types.int64(types.uint64), generate
