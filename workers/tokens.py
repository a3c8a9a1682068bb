"""A teacher's tokens, where its tokenizer is at hand: counting a prompt's, writing a row as ids."""

import sys
from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from prompts.plan import Encoded, EncodeError
from prompts.record import Message, Record
from service.asking import TeacherError
from service.problems import Problem
from service.store import Store

Counter = Callable[[tuple[Message, ...]], int]


def token_counter(store: Store, session: Session, model: str | None) -> Counter | None:
    """Counts the tokens of a conversation under the chat template of the teacher's `model`.

    None if its tokenizer is not on this machine or has no chat template: then the teacher itself
    refuses what is too long, and the row is rejected with its words.
    """
    directory = _directory(store, session, model)
    if directory is None or not (directory / "tokenizer.json").is_file():
        return None
    # Late: it takes seconds, and only builds whose teacher lies here need it.
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    if tokenizer.chat_template is None:
        return None

    def count(messages: tuple[Message, ...]) -> int:
        turns = [message.model_dump() for message in messages]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        # The template writes the special tokens itself.
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def row_encoder(teacher: str, directory: Path | None) -> Callable[[Record], Encoded]:
    """Writes a row as token ids: the very function that the trainer writes its rows with, so that
    `stored_kl` finds the tokens that were scored. Raises TeacherError where tokenizer or chat
    template can't be read."""
    # Late: torch comes with it, and only builds that rescore need it.
    from transformers import AutoTokenizer

    from trainer.data import encode
    from trainer.errors import BadInput

    if directory is None:
        raise TeacherError("teacher_without_tokenizer", f"teacher {teacher}: {_ADVICE}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory))
    except (OSError, ValueError) as error:
        raise TeacherError("teacher_without_tokenizer", f"{directory}: {error}") from error
    ends = _end_ids(directory, tokenizer.eos_token_id)

    def write(record: Record) -> Encoded:
        try:
            (row,) = encode([record], tokenizer, sys.maxsize, ends).rows
        except BadInput as error:
            raise EncodeError(str(error)) from error
        return Encoded(tuple(int(token) for token in row.ids), row.prompt_tokens)

    return write


def _end_ids(directory: Path, eos_id: int | None) -> frozenset[int]:
    """Tokens that end a turn: the tokenizer's eos and those that generation stops at."""
    from transformers import AutoConfig, GenerationConfig

    try:
        generation = GenerationConfig.from_pretrained(str(directory))
    except OSError:
        generation = GenerationConfig.from_model_config(AutoConfig.from_pretrained(str(directory)))
    stops = generation.eos_token_id
    listed = stops if isinstance(stops, list) else [stops]
    return frozenset(token for token in (*listed, eos_id) if token is not None)


_ADVICE = "its tokenizer is not on this machine; register it with its directory as `model`"


def _directory(store: Store, session: Session, model: str | None) -> Path | None:
    if model is None:
        return None
    try:
        return Path(store.locate_model(session, model))
    except Problem:
        return None
