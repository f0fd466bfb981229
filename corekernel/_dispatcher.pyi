from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., object])

class _FFI:
    NULL: Any
    def def_extern(self, name: str, error: int = ..., onerror: Callable[..., object] = ...) -> Callable[[F], F]: ...
    def __getattr__(self, name: str) -> Any: ...

ffi: _FFI
lib: Any
