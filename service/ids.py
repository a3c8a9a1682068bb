"""Ids: a prefix that tells what they name, then 12 characters that sort by the time of making."""

import secrets
import threading
import time
from typing import Literal

Prefix = Literal["job", "ds", "model", "report", "file", "key", "sched"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH_S = 1767225600
"""2026-01-01 UTC; seven characters of 10 ms last until late 2036, then the order wraps."""

_lock = threading.Lock()
_last = 0


def make_id(prefix: Prefix) -> str:
    """A new id such as `job-02k9c1q7x4ma`. Those of one process ascend, also within 10 ms and where
    the clock is put back: what was made later is listed later."""
    global _last
    drawn = (int((time.time() - _EPOCH_S) * 100) << 25) | secrets.randbits(25)
    with _lock:
        _last = drawn if drawn >> 25 > _last >> 25 else _last + 1 + secrets.randbits(16)
        return f"{prefix}-{_digits(_last, 12)}"


def _digits(number: int, width: int) -> str:
    return "".join(_ALPHABET[(number >> (5 * place)) & 31] for place in reversed(range(width)))
