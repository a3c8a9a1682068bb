"""Ids: a prefix that tells what they name, then 12 characters that sort by the time of making."""

import secrets
import time
from typing import Literal

Prefix = Literal["job", "ds", "model", "report", "file", "key", "sched"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH_S = 1767225600
"""2026-01-01 UTC; seven characters of 10 ms last until late 2036, then the order wraps."""


def make_id(prefix: Prefix) -> str:
    """A new id such as `job-02k9c1q7x4ma`."""
    ticks = int((time.time() - _EPOCH_S) * 100)
    return f"{prefix}-{_digits(ticks, 7)}{_digits(secrets.randbits(25), 5)}"


def _digits(number: int, width: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(width)))
