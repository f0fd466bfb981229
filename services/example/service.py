"""A SHA-256 digest service: the one to copy when you write your own."""

import hashlib

from corekernel.port import Caller
from corekernel.service import Environment
from services.stubs.example import ExampleServer


class Service(ExampleServer):
    """Digests what it is sent; keeps nothing."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def digest(self, caller: Caller, data: memoryview) -> bytes:
        """See the interface."""
        return hashlib.sha256(data).digest()
