"""Which runs are one, and which are not: whatever decides the weights makes another."""

from pathlib import Path
from typing import Any

import pytest

from prompts.record import Message, Record
from tests.trainer.conftest import make_records
from tests.trainer.methods.made import icl_records, spec_of
from trainer.events import silent
from trainer.preparation import prepare


def digest(
    place: Path,
    method: str,
    records: list[Record],
    validation: list[Record],
    optimization: dict[str, Any] | None = None,
) -> str:
    spec = spec_of(place, method, optimization=optimization or {})
    return prepare(spec, records, validation, silent).digest


def test_what_the_teacher_alone_sees_decides(tmp_path: Path) -> None:
    rows = icl_records(4)
    shown = Message(role="user", content=f"w9 {rows[0].prompt[0].content}")
    changes = {"prompt": (shown, *rows[0].prompt[1:]), "content_hash": "another"}
    other = [rows[0].model_copy(update=changes), *rows[1:]]
    first, second = (digest(tmp_path, "multitask_ict", given, []) for given in (rows, other))
    assert first != second
    assert first == digest(tmp_path, "multitask_ict", rows, [])


@pytest.mark.parametrize("chooses", [{"keep": "best"}, {"patience": 2}])
def test_validation_decides_where_it_chooses_the_weights(
    tmp_path: Path, chooses: dict[str, Any]
) -> None:
    rows, held = make_records(8), make_records(12)[8:]

    def made(validation: list[Record], **optimization: Any) -> str:
        return digest(tmp_path, "sequence_level", rows, validation, optimization)

    assert made(held, **chooses) != made(held[:2], **chooses)
    assert made(held, **chooses) != made(held, eval_steps=1, **chooses)
    assert made(held) == made(held[:2]) == made(held, eval_steps=1)


def test_so_does_the_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = digest(tmp_path, "sequence_level", make_records(8), [])
    monkeypatch.setattr("trainer.preparation._ranks", lambda: 2)
    assert digest(tmp_path, "sequence_level", make_records(8), []) != alone


def test_another_tokenizer_of_a_teacher_decides(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "uld")
    first = prepare(spec, make_records(8), [], silent).digest
    file = tmp_path / "teacher/tokenizer_config.json"
    file.write_text(file.read_text() + "\n")
    assert prepare(spec, make_records(8), [], silent).digest != first
