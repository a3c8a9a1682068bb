"""Chats to train on, made into a dataset: a row for each turn of the assistant."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import select

from prompts.dataset import DatasetError
from prompts.record import Kind
from prompts.seeds import SeedError, scan_seeds
from prompts.spec import Split
from prompts.split import split_of
from service.datasets import DatasetImport, publish_import
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.tables import Artifact

UNUSED = ("tools", "functions", "parallel_tool_calls")


def dataset_of(site: Site, reference: str) -> Artifact:
    """The dataset of a training file, imported once. Its rows are split by their conversation, so
    that no turn of one is trained on and another tested. Raises a 422 problem with the line."""
    with site.sessions.reading() as session:
        file = site.store.resolve(session, reference, "file")
        known = select(Artifact).where(Artifact.kind == "dataset", Artifact.name == file.id)
        earlier = session.scalars(known.order_by(Artifact.version.desc())).first()
    if earlier is not None:
        return earlier
    with tempfile.TemporaryDirectory(prefix="chats-") as folder:
        source = Path(folder) / "chats.jsonl"
        try:
            with source.open("w", encoding="utf-8") as rows:
                for row in _rows(site.store.path(file)):
                    rows.write(json.dumps(row, ensure_ascii=False) + "\n")
        except (SeedError, DatasetError) as error:
            raise _unusable(f"{file.name}: {error}") from error
        wanted = DatasetImport(name=file.id, kind=Kind.IF, file=file.id)
        try:
            return publish_import(site, source, wanted, [file.id])
        except Problem as problem:
            raise _unusable(problem.detail) from problem


def _unusable(why: str) -> Problem:
    return bad_input([Fault("training_file", why)], "The training file can't be used")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line, chat in scan_seeds(lines, frozenset({"messages"})):
            yield from _turns(line, chat)


def _turns(line: int, chat: dict[str, Any]) -> Iterator[dict[str, Any]]:
    unused = [name for name in UNUSED if chat.get(name)]
    if unused:
        raise DatasetError(f"line {line}: {unused[0]!r} is not trained on; leave it out")
    messages = chat["messages"]
    if not isinstance(messages, list) or not all(isinstance(one, dict) for one in messages):
        raise DatasetError(f"line {line}: 'messages' must be a list of messages")
    plain = [{name: one[name] for name in one if name != "weight"} for one in messages]
    split = split_of(json.dumps(plain[:-1], ensure_ascii=False), Split())
    places = [
        place
        for place, one in enumerate(messages)
        if place and one.get("role") == "assistant" and one.get("weight", 1)
    ]
    if not places:
        raise DatasetError(f"line {line}: no message of the assistant to train on after a prompt")
    for place in places:
        turn = {"id": f"{line}-{place}", "split": split}
        yield turn | {"prompt": plain[:place], "completion": [plain[place]]}
