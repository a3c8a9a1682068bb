"""One row of a signal, as it is used and as it is stored.

T tokens of a completion, k entries a token.
Log-probs down to -4 nats are rounded to 1/64 nat, lower ones to 1/8: what is improbable weighs
little in a divergence. Reading scales the k + 1 outcomes (the tail is one) so that they sum to one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from prompts.signal.header import SignalHeader

_FINE, _COARSE = 1 / 64, 1 / 8
_FINE_TO = 4.0
"""Nats below 0 up to which codes are fine."""
_FINE_CODES = int(_FINE_TO / _FINE)
_LARGEST_CODE = 65535
_CODES = np.arange(_LARGEST_CODE + 1)
_LOGPROBS = np.where(
    _CODES <= _FINE_CODES, _CODES * -_FINE, -_FINE_TO - (_CODES - _FINE_CODES) * _COARSE
).astype(np.float32)
"""What each code stands for; what lies below the last, about -8164, is zero in any float."""
LEAST_TAIL = 2.0**-20
"""Of the mass, which is what 32-bit log-probs leave of one: they are held to about a millionth, and
less would be their rounding. A tail of nothing is one that a reverse KL could not pay for."""
LOGPROB_ERROR_NATS = (_FINE + _COARSE) / 2, _COARSE
"""Bounds of the error of a log-prob read above -4 nats, and of one below: half a step, and at most
1/16 for the scaling. benchmarks/signal.py measures the KL that they come to."""
WEIGHT_ERROR = 2.0**-11
"""Bound of the relative error of an importance weight; none where the proposal is the teacher's own
distribution, for all weights are 1/n then."""


class SignalError(ValueError):
    """A signal that can't be read, doesn't belong here, or can't be written so."""


@dataclass(frozen=True)
class TopKRow:
    """The k likeliest tokens at each place, likeliest first."""

    token_ids: NDArray[np.int32]
    """[T] the completion's tokens exactly as the teacher counted them, its end included."""
    ids: NDArray[np.int32]
    """[T, k]"""
    logprobs: NDArray[np.float32]
    """[T, k] natural logarithms, descending."""
    tail_logprob: NDArray[np.float32]
    """[T] log of the mass outside the k, of `LEAST_TAIL` at least."""
    kind: Literal["top_k"] = "top_k"


@dataclass(frozen=True)
class SampledRow:
    """n independent draws at each place. The weighted draws are an unbiased estimate of the
    teacher's distribution [2503.16870]; the weights need not sum to one."""

    token_ids: NDArray[np.int32]
    """[T] the completion's tokens."""
    ids: NDArray[np.int32]
    """[T, n] drawn tokens; one that was drawn twice stands there twice."""
    weights: NDArray[np.float32]
    """[T, n] p(id) / (n q(id)): p the teacher, q the distribution drawn from."""
    kind: Literal["sampled"] = "sampled"


RowSignal = TopKRow | SampledRow


def top_k_row(
    token_ids: NDArray[np.int32], ids: NDArray[np.int32], logprobs: NDArray[np.float32]
) -> TopKRow:
    """A row from ids [T, k] and their log-probs in any order; the tail is what they leave."""
    order = np.argsort(-logprobs, axis=1, kind="stable")
    ids = np.take_along_axis(ids, order, axis=1)
    logprobs = np.take_along_axis(logprobs, order, axis=1)
    left = 1.0 - np.exp(logprobs.astype(np.float64)).sum(axis=1)
    tail = np.log(np.maximum(left, LEAST_TAIL)).astype(np.float32)
    return TopKRow(token_ids, ids, logprobs, tail)


@dataclass(frozen=True)
class CodedRow:
    """A row as it is stored; copying one from file to file changes nothing."""

    token_ids: NDArray[np.int32]
    """[T]"""
    ids: NDArray[np.int32]
    """[T, k]"""
    codes: NDArray[np.uint16]
    """[T, k] top_k: see `_LOGPROBS`, ascending; sampled: the bits of float16(n * weight)."""
    tail: NDArray[np.uint16]
    """[T] top_k: codes too; sampled: zeros."""


def encode_row(header: SignalHeader, row: RowSignal) -> CodedRow:
    """Raises SignalError, which says what of the row doesn't fit the header."""
    _check(header, row)
    if isinstance(row, SampledRow):
        scaled = (row.weights * np.float32(header.width)).astype(np.float16)
        tail = np.zeros(len(row.token_ids), np.uint16)
        return CodedRow(row.token_ids, row.ids, scaled.view(np.uint16), tail)
    return CodedRow(row.token_ids, row.ids, _to_code(row.logprobs), _to_code(row.tail_logprob))


def decode_rows(header: SignalHeader, coded: CodedRow) -> RowSignal:
    """What was stored, of one row or of several joined along T."""
    if header.kind == "sampled":
        scaled = coded.codes.view(np.float16).astype(np.float32)
        return SampledRow(coded.token_ids, coded.ids, scaled / np.float32(header.width))
    logprobs, tail = _LOGPROBS[coded.codes], _LOGPROBS[coded.tail]
    total = np.exp(logprobs).sum(axis=1) + np.exp(tail)
    shift = np.log(total, dtype=np.float32)
    return TopKRow(coded.token_ids, coded.ids, logprobs - shift[:, None], tail - shift)


def _to_code(logprobs: NDArray[np.float32]) -> NDArray[np.uint16]:
    below = np.maximum(-logprobs, 0)  # A log-prob a little above 0 is a server's rounding.
    fine = np.rint(below / _FINE)
    coarse = _FINE_CODES + np.rint((below - _FINE_TO) / _COARSE)
    codes = np.where(below <= _FINE_TO, fine, coarse)
    return np.minimum(codes, _LARGEST_CODE).astype(np.uint16)


def _check(header: SignalHeader, row: RowSignal) -> None:
    tokens, shape = len(row.token_ids), row.ids.shape
    if row.kind != header.kind:
        raise SignalError(f"a row of kind {row.kind!r} under a header of {header.kind!r}")
    if shape != (tokens, header.width):
        raise SignalError(f"{tokens} tokens of {header.width} entries wanted, ids are {shape}")
    values = row.weights if isinstance(row, SampledRow) else row.logprobs
    if values.shape != shape:
        raise SignalError(f"ids are {shape}, their values {values.shape}")
    if isinstance(row, TopKRow):
        _check_top_k(row)
    elif not np.isfinite(values).all() or (values < 0).any():
        raise SignalError("importance weights must be finite and not negative")
    _check_ids(header, row)


def _check_top_k(row: TopKRow) -> None:
    if row.tail_logprob.shape != row.token_ids.shape:
        raise SignalError(f"{len(row.token_ids)} tokens, {row.tail_logprob.shape} tail masses")
    if np.isnan(row.logprobs).any() or np.isnan(row.tail_logprob).any():
        raise SignalError("a log-prob is no number")
    if (row.logprobs > 1e-3).any() or (row.tail_logprob > 1e-3).any():
        raise SignalError("a log-prob is above 0")
    if (np.diff(row.logprobs, axis=1) > 0).any():
        raise SignalError("log-probs must be in descending order")


def _check_ids(header: SignalHeader, row: RowSignal) -> None:
    above = header.vocabulary or 1 << 24
    for name, ids in (("token_ids", row.token_ids), ("ids", row.ids)):
        if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= above):
            found = f"{int(ids.min())} to {int(ids.max())}"
            raise SignalError(f"{name} go from {found}, the vocabulary is 0 to {above - 1}")
    # A student's share of such a token would count twice. Draws may come twice.
    if isinstance(row, TopKRow) and (np.diff(np.sort(row.ids, axis=1), axis=1) == 0).any():
        raise SignalError("a token stands twice among the k of a place")
