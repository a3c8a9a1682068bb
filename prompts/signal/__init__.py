"""What a teacher thought of each token of its completions, stored compactly, joined by row id.

    with SignalReader(dataset / "signal") as reader:
        row = reader.read("row-000001")

A row is a `TopKRow` (the k likeliest tokens and the log mass of all others) or a `SampledRow`
(n drawn tokens with importance weights). docs/signal.md has the format and its error bounds.
"""

from prompts.signal.header import SignalHeader
from prompts.signal.reader import SignalReader
from prompts.signal.rows import (
    LOGPROB_ERROR_NATS,
    RowSignal,
    SampledRow,
    SignalError,
    TopKRow,
    top_k_row,
)
from prompts.signal.writer import SignalFile, SignalWriter, write_signal

__all__ = [
    "LOGPROB_ERROR_NATS",
    "RowSignal",
    "SampledRow",
    "SignalError",
    "SignalFile",
    "SignalHeader",
    "SignalReader",
    "SignalWriter",
    "TopKRow",
    "top_k_row",
    "write_signal",
]
