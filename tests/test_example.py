import hashlib

from tests.systems import Boots


def test_a_digest_is_that_of_sha256(system: Boots) -> None:
    example = system("default").attach().example
    assert all(example.digest(data) == hashlib.sha256(data).digest() for data in (b"", b"small", bytes(1 << 20)))
