"""Distillation from a signal stored beside the dataset: joined by row id, checked before use."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from prompts.files import file_sha256
from prompts.record import Record
from prompts.signal import SampledRow, SignalError, SignalHeader, SignalReader, TopKRow
from trainer.batch import Batch
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.loading import tokenizer_file
from trainer.methods.method import Fitting, Setting
from trainer.methods.off_policy import mixed
from trainer.methods.selection import select_all
from trainer.objectives import DIVERGENCES, Term
from trainer.objectives.stored import sampled_term, top_k_term
from trainer.spec import StoredKL
from trainer.student import Losses, Objective, Seen, head_of

FOLDER = "signal"


def select_signalled(spec: StoredKL, records: Sequence[Record]) -> list[Record]:
    """Complete rows that have a signal at the spec's temperature; BadInput where any has none."""
    rows = select_all(spec, records)
    with open_signal(spec) as reader:
        _check_header(spec, reader.header)
        with _damage_named():
            lacking = [row.id for row in rows if row.id not in reader]
    if lacking:
        raise BadInput(
            f"{len(lacking)} of {len(rows)} rows have no stored signal",
            f"The first is {lacking[0]}. Rescore the dataset, or use a method without signal.",
        )
    return rows


def check_signal(spec: StoredKL, fitting: Fitting) -> None:
    """The signal is of this tokenizer and head, and of every row's very tokens, or BadInput."""
    with open_signal(spec) as reader:
        check_source(reader.header, fitting.tokenizer)
        size = head_of(fitting.shape).weight.shape[0]
        _check_vocabulary(reader.header.vocabulary, size)
        for row in fitting.rows:
            found = _read(reader, row.row)
            check_tokens(row, found.token_ids)
            # of a teacher whose files weren't at hand the header doesn't know the size
            _check_vocabulary(int(found.ids.max(initial=-1)) + 1, size)


def stored_kl(spec: StoredKL, setting: Setting) -> Objective:
    """Of a signal that `check_signal` has looked at."""
    reader = open_signal(spec)

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        term = _term(spec, reader, batch)
        name = spec.divergence.kind
        return Losses(mixed(name, term, targets, spec.cross_entropy_weight))

    return Objective(losses)


def open_signal(spec: StoredKL) -> SignalReader:
    """The dataset's; BadInput where it has none that can be read."""
    place = Path(spec.dataset or ".") / FOLDER
    try:
        return SignalReader(place)
    except (SignalError, OSError) as error:
        raise BadInput(
            "stored_kl needs a dataset with a stored signal",
            f"{error}. Build the dataset with a signal, or use kd with the teacher in process.",
        ) from error


def check_tokens(row: TokenRow, token_ids: NDArray[np.int32]) -> None:
    """The signal is of these very tokens, or BadInput."""
    ours = row.ids[row.prompt_tokens :]
    if len(ours) == len(token_ids) and bool((ours == token_ids).all()):
        return
    shared = min(len(ours), len(token_ids))
    first = int(np.argmax(np.append(ours[:shared] != token_ids[:shared], True)))
    raise BadInput(
        f"row {row.row}'s signal is of other tokens",
        f"From completion token {first} on they differ: {ours[first : first + 5].tolist()} in the "
        f"row, {token_ids[first : first + 5].tolist()} in the signal. The teacher's tokens must be "
        "those that the student's chat template writes: give it the teacher's, or rescore.",
    )


def check_source(header: SignalHeader, tokenizer: PreTrainedTokenizerBase) -> None:
    """The signal is of this tokenizer and its chat template, or BadInput."""
    ours = tokenizer_sha256(tokenizer)
    if None not in (ours, header.tokenizer_sha256) and ours != header.tokenizer_sha256:
        raise BadInput(
            "the signal was made with another tokenizer",
            f"Its tokenizer.json has SHA-256 {header.tokenizer_sha256}, the student's {ours}.",
        )
    template = hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()
    if header.template_sha256 not in (None, template):
        raise BadInput(
            "the signal was made with another chat template",
            f"SHA-256 {header.template_sha256}, the student's {template}. Give the student the "
            "teacher's chat template, or rescore.",
        )


def _check_header(spec: StoredKL, header: SignalHeader) -> None:
    if header.temperature != spec.kd_temperature:
        raise BadInput(
            f"the signal was recorded at temperature {header.temperature}",
            f"kd_temperature is {spec.kd_temperature}. What lies outside the stored tokens can't "
            f"be re-tempered: set kd_temperature to {header.temperature}, or record another.",
        )
    if header.kind == "sampled" and spec.divergence.kind != "forward_kl":
        raise BadInput(
            f"a sampled signal can't give {spec.divergence.kind}",
            "Only the forward KL's gradient is an expectation under the teacher; others need its "
            "probabilities where nothing was drawn. Use forward_kl, or a top-k signal.",
        )


def tokenizer_sha256(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Of the tokenizer.json that it was loaded from; None where there is none."""
    path = tokenizer_file(tokenizer)
    return None if path is None else file_sha256(path)


def _check_vocabulary(known: int | None, size: int) -> None:
    if known is not None and known > size:
        raise BadInput(
            "the signal knows more tokens than the student's head",
            f"{known} against {size}. Resize the student's embeddings.",
        )


def _read(reader: SignalReader, row_id: str) -> TopKRow | SampledRow:
    with _damage_named():
        return reader.read(row_id)


@contextlib.contextmanager
def _damage_named() -> Iterator[None]:
    """Within, BadInput for what isn't as it was written; a block's is seen where it is read."""
    try:
        yield
    except SignalError as error:
        raise BadInput("the stored signal can't be read", str(error)) from error


def _term(spec: StoredKL, reader: SignalReader, batch: Batch) -> Term:
    """Of the batch's kept positions: its rows' completion tokens one after the other."""
    found = [_read(reader, row.row) for row in batch.rows] if batch.kept else []
    device = batch.input_ids.device
    ids = _joined([row.ids for row in found], reader.header.width, np.int64).to(device)
    if reader.header.kind == "sampled":
        weights = [row.weights for row in found if isinstance(row, SampledRow)]
        joined = _joined(weights, reader.header.width, np.float32).to(device)
        return sampled_term(ids, joined, spec.kd_temperature)
    top = [row for row in found if isinstance(row, TopKRow)]
    logprobs = _joined([row.logprobs for row in top], reader.header.width, np.float32).to(device)
    tails = [row.tail_logprob[:, None] for row in top]
    tail = _joined(tails, 1, np.float32).squeeze(1).to(device)
    divergence = DIVERGENCES[spec.divergence.kind](spec.divergence)
    return top_k_term(divergence, ids, logprobs, tail, spec.kd_temperature)


def _joined(parts: Sequence[NDArray[np.generic]], width: int, dtype: type) -> Tensor:
    if not parts:
        return torch.from_numpy(np.zeros((0, width), dtype))
    return torch.from_numpy(np.concatenate(parts).astype(dtype))
