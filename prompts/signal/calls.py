"""From the ledger's calls to the rows of a signal file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from prompts.parse import split_thinking
from prompts.plan import SCORES
from prompts.record import Call, CallDraws, CallSignal, Record, Rejected
from prompts.signal.rows import RowSignal, SampledRow, TopKRow, top_k_row


def signals_of(
    rows: Iterable[Record | Rejected], calls: Mapping[str, Sequence[Call]]
) -> Iterator[tuple[str, RowSignal]]:
    """(row id, signal) of every accepted row, in order.

    Of a row's calls, given by row id, the signal is that of the one whose text became the
    completion. An accepted row without one is passed over.
    """
    for row in rows:
        if isinstance(row, Record):
            found = signal_of(row, calls.get(row.id, ()))
            if found is not None:
                yield row.id, found


def signal_of(record: Record, calls: Iterable[Call]) -> RowSignal | None:
    """The signal of the call that scored the record's completion, or whose text, its thinking
    aside, it is."""
    text = record.completion[-1].content
    for call in calls:
        if call.signal is None:
            continue
        spoken = (call.text, split_thinking(call.text, call.reasoning).text)
        if call.step == SCORES or text in spoken:
            return to_row(call.signal)
    return None


def to_row(signal: CallSignal | CallDraws) -> RowSignal:
    """A ledger's signal as arrays: the likeliest first, with their tail, or the draws."""
    if isinstance(signal, CallDraws):
        return _drawn(signal)
    return _likeliest(signal)


def _drawn(signal: CallDraws) -> SampledRow:
    shape = (len(signal.token_ids), -1) if signal.token_ids else (0, 1)
    return SampledRow(
        np.array(signal.token_ids, np.int32),
        np.array(signal.draws, np.int32).reshape(shape),
        np.array(signal.weights, np.float32).reshape(shape),
    )


def _likeliest(signal: CallSignal) -> TopKRow:
    shape = (len(signal.token_ids), -1) if signal.token_ids else (0, 1)
    return top_k_row(
        np.array(signal.token_ids, np.int32),
        np.array(signal.top_ids, np.int32).reshape(shape),
        np.array(signal.top_logprobs, np.float32).reshape(shape),
    )
