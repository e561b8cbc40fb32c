"""Draws that any two people repeat: a number in [0, 1) that depends on its key alone."""

from __future__ import annotations

from hashlib import blake2b


def uniform(seed: int, *key: str) -> float:
    """A number in [0, 1) for `(seed, *key)`: equal on every machine and in every process, and for no other key.

    The first 53 bits of BLAKE2b over the parts, each ended by a zero byte.
    """
    digest = blake2b(digest_size=8)
    for part in (str(seed), *key):
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53
