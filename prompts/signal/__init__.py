"""What a teacher thought of each token of its completions, stored compactly, joined by row id.

    with SignalReader(dataset / "signal") as reader:
        row = reader.read("row-000001")

A row is a `TopKRow` (the k likeliest tokens and the log mass of all others) or a `SampledRow`
(n drawn tokens with importance weights). docs/signal.md has the format and its error bounds.
"""

from prompts.signal.calls import signal_of, signals_of, to_row
from prompts.signal.fingerprint import (
    context_tokens,
    template_sha256,
    tokenizer_sha256,
    vocabulary_size,
)
from prompts.signal.header import SignalHeader
from prompts.signal.reader import SUFFIX, SignalReader
from prompts.signal.rows import (
    LOGPROB_ERROR_NATS,
    RowSignal,
    SampledRow,
    SignalError,
    TopKRow,
    top_k_row,
)
from prompts.signal.writer import SignalFile, SignalWriter, signal_file, write_signal

__all__ = [
    "LOGPROB_ERROR_NATS",
    "SUFFIX",
    "RowSignal",
    "SampledRow",
    "SignalError",
    "SignalFile",
    "SignalHeader",
    "SignalReader",
    "SignalWriter",
    "TopKRow",
    "context_tokens",
    "signal_file",
    "signal_of",
    "signals_of",
    "template_sha256",
    "to_row",
    "tokenizer_sha256",
    "top_k_row",
    "vocabulary_size",
    "write_signal",
]
