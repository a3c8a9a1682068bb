"""The teacher signal of a build: its header, and one file beside each chunk's rows."""

from collections.abc import Sequence
from pathlib import Path

from prompts.record import Call, Record, Rejected
from prompts.signal import (
    SUFFIX,
    SignalHeader,
    signals_of,
    template_sha256,
    tokenizer_sha256,
    vocabulary_size,
    write_signal,
)
from prompts.spec import BuildSpec
from service.tables import Teacher


def signal_header(spec: BuildSpec, teacher: Teacher, directory: Path | None) -> SignalHeader | None:
    """What all of a build's signal shares; None if it asks for none.

    What the `directory` of the teacher's model would tell is None where that is not at hand.
    """
    if spec.signal is None:
        return None
    sampled = spec.signal.sampled
    return SignalHeader(
        kind="top_k" if sampled is None else "sampled",
        width=sampled or spec.signal.top_k or 0,
        # Draws are the teacher's own, so that all weights are alike.
        proposal_temperature=None if sampled is None else 1.0,
        # vLLM's log-probs are those of the raw logits, whatever the sampling temperature.
        temperature=1.0,
        vocabulary=vocabulary_size(directory) if directory else None,
        tokenizer_sha256=tokenizer_sha256(directory) if directory else None,
        template_sha256=template_sha256(directory) if directory else None,
        teacher=teacher.name,
        teacher_revision=teacher.probe.get("revision"),
    )


def write_chunk_signal(
    chunk: Path,
    header: SignalHeader | None,
    rows: Sequence[Record | Rejected],
    calls: dict[str, list[Call]],
) -> list[Path]:
    """Writes the signal of a chunk's accepted rows beside its file; nothing without a header. What
    was written.

    `calls` are the rows' ledger entries, by row id.
    """
    if header is None:
        return []
    path = chunk.with_suffix(SUFFIX)
    write_signal(path, header, signals_of(rows, calls))
    return [path]
