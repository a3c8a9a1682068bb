"""Counting a prompt's tokens as the teacher will, where its tokenizer is at hand."""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy.orm import Session

from prompts.record import Message
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


def _directory(store: Store, session: Session, model: str | None) -> Path | None:
    if model is None:
        return None
    try:
        return Path(store.locate_model(session, model))
    except Problem:
        return None
