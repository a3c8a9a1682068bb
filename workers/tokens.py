"""A teacher's tokens, where its tokenizer is at hand: counting a prompt's, writing a row as ids."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from sqlalchemy.orm import Session

from prompts.plan import Encoded, EncodeError, Opening
from prompts.record import Message, Record
from prompts.template import compile_template
from prompts.tools import Tool, as_sent, template_turn
from service.asking import TeacherError
from service.problems import Problem
from service.store import Store, light

Counter = Callable[[tuple[Message, ...], tuple[Tool, ...]], int]


def token_counter(store: Store, session: Session, model: str | None) -> Counter | None:
    """Counts the tokens of a conversation, its functions among them, under the chat template of the
    teacher's `model`.

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

    def count(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> int:
        turns = [template_turn(message) for message in messages]
        functions: list[Any] | None = as_sent(tools) or None
        text = tokenizer.apply_chat_template(
            turns, tools=functions, tokenize=False, add_generation_prompt=True
        )
        # The template writes the special tokens itself.
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    return count


def row_encoder(teacher: str, directory: Path | None) -> Callable[[Record], Encoded]:
    """Writes a row as token ids: the very function that the trainer writes its rows with, so that
    `stored_kl` finds the tokens that were scored. Raises TeacherError where tokenizer or chat
    template can't be read."""
    # Late: torch comes with it, and only builds that rescore need it.
    from trainer.data import encode
    from trainer.errors import BadInput

    tokenizer = _tokenizer(teacher, directory)
    assert directory is not None
    ends = _end_ids(directory, tokenizer.eos_token_id)

    def write(record: Record) -> Encoded:
        try:
            (row,) = encode([record], tokenizer, sys.maxsize, ends).rows
        except BadInput as error:
            raise EncodeError(str(error)) from error
        return Encoded(tuple(int(token) for token in row.ids), row.prompt_tokens)

    return write


def user_opening(teacher: str, directory: Path | None, system: str | None) -> Opening:
    """What the teacher's chat template writes before a user's words, and what ends them. Raises
    TeacherError where tokenizer or chat template can't be read, or the template shows no user's
    words."""
    tokenizer = _tokenizer(teacher, directory)
    turns = [{"role": "user", "content": _MARK}]
    if system is not None:
        text = compile_template(system).render({})
        turns = [{"role": "system", "content": text}, *turns]
    try:
        shown = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        words = f"the chat template of teacher {teacher} refuses the turns: {error}"
        raise TeacherError("teacher_without_user_turn", words) from error
    before, mark, after = shown.partition(_MARK)
    if not mark:
        raise TeacherError(
            "teacher_without_user_turn",
            f"the chat template of teacher {teacher} shows no user's words: it can't write any",
        )
    # A blank that is a token of its own is no way to begin a text.
    text = before.rstrip(" ")
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return Opening(tuple(ids), text, *_ending(tokenizer, after.strip()))


def _ending(tokenizer: Any, after: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(stop ids, stop texts): a special token by its id, for servers leave those out of texts."""
    if not after:
        return (), ()
    first = tokenizer(after, add_special_tokens=False)["input_ids"][0]
    if first in tokenizer.added_tokens_decoder and tokenizer.added_tokens_decoder[first].special:
        return (int(first),), ()
    return (), (after.splitlines()[0],)


def _tokenizer(teacher: str, directory: Path | None) -> Any:
    """A transformers tokenizer. Raises TeacherError."""
    # Late: it takes seconds.
    from transformers import AutoTokenizer

    if directory is None:
        raise TeacherError("teacher_without_tokenizer", f"teacher {teacher}: {_ADVICE}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory))
    except (OSError, ValueError) as error:
        raise TeacherError("teacher_without_tokenizer", f"{directory}: {error}") from error
    if tokenizer.chat_template is None:
        raise TeacherError("teacher_without_tokenizer", f"{directory} has no chat template")
    return tokenizer


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


_MARK = "a-user-would-speak-here"
_ADVICE = "its tokenizer is not on this machine; register it with its directory as `model`"


def _directory(store: Store, session: Session, model: str | None) -> Path | None:
    if model is None:
        return None
    try:
        return Path(store.locate_model(session, model, light))
    except Problem:
        return None
