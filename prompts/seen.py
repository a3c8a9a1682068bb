"""Which keys were met before, in 24 bytes a slot in place of Python objects."""

from array import array
from hashlib import blake2b

_FIRST_SLOTS = 1 << 10


def digest16(text: str) -> bytes:
    """A 16-byte hash of `text`: what `Seen` keeps of it."""
    return blake2b(text.encode(), digest_size=16).digest()


class Seen:
    """An open-addressed table from 16-byte keys to the number they first came with.

    Two different texts among n are taken for one with a probability of about n^2 / 2^129.
    """

    def __init__(self) -> None:
        self._count = 0
        self._reserve(_FIRST_SLOTS)

    def first(self, key: bytes, number: int) -> int | None:
        """The number that `key` first came with; None (and `number` is kept) if it is new."""
        high, low = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:16], "big")
        slot = self._slot(high, low)
        if self._numbers[slot]:
            return self._numbers[slot] - 1
        self._put(slot, high, low, number + 1)
        if 3 * self._count > 2 * len(self._numbers):
            self._grow()
        return None

    def __len__(self) -> int:
        return self._count

    def _slot(self, high: int, low: int) -> int:
        highs, lows, numbers, mask = self._highs, self._lows, self._numbers, self._mask
        slot = low & mask
        while numbers[slot] and (highs[slot] != high or lows[slot] != low):
            slot = (slot + 1) & mask
        return slot

    def _put(self, slot: int, high: int, low: int, number: int) -> None:
        self._highs[slot], self._lows[slot], self._numbers[slot] = high, low, number
        self._count += 1

    def _reserve(self, slots: int) -> None:
        self._mask = slots - 1
        self._highs = array("Q", bytes(8 * slots))
        self._lows = array("Q", bytes(8 * slots))
        self._numbers = array("Q", bytes(8 * slots))

    def _grow(self) -> None:
        kept = zip(self._highs, self._lows, self._numbers, strict=True)
        self._count = 0
        self._reserve(2 * len(self._numbers))
        for high, low, number in kept:
            if number:
                self._put(self._slot(high, low), high, low, number)
