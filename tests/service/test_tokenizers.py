import json
from pathlib import Path

from service.tokenizers import difference
from tests.service.given import add_model

WORDS = {"<eos>": 0, "a": 1, "b": 2}


def test_equal_vocabularies_agree(tmp_path: Path) -> None:
    student, teacher = (add_model(tmp_path / name, WORDS) for name in "st")
    assert difference(student, teacher) is None


def test_a_missing_token_is_named(tmp_path: Path) -> None:
    student = add_model(tmp_path / "s", {"<eos>": 0, "a": 1})
    teacher = add_model(tmp_path / "t", WORDS)
    assert "1 only in the teacher ('b')" in (difference(student, teacher) or "")


def test_a_token_with_another_id_is_named(tmp_path: Path) -> None:
    student = add_model(tmp_path / "s", {"<eos>": 0, "a": 2, "b": 1})
    teacher = add_model(tmp_path / "t", WORDS)
    assert "'a': 2 and 1" in (difference(student, teacher) or "")


def test_lists_of_pieces_count_by_their_place(tmp_path: Path) -> None:
    student, teacher = add_model(tmp_path / "s"), add_model(tmp_path / "t", WORDS)
    pieces = {"model": {"vocab": [["<eos>", 0.0], ["a", -1.0]]}, "added_tokens": []}
    pieces["added_tokens"] = [{"id": 2, "content": "b"}]
    (student / "tokenizer.json").write_text(json.dumps(pieces))
    assert difference(student, teacher) is None


def test_other_special_tokens_are_named(tmp_path: Path) -> None:
    student, teacher = (add_model(tmp_path / name, WORDS) for name in "st")
    (student / "tokenizer_config.json").write_text('{"eos_token": "a"}')
    (teacher / "tokenizer_config.json").write_text('{"eos_token": {"content": "<eos>"}}')
    assert "different eos_tokens: 'a' and '<eos>'" in (difference(student, teacher) or "")


def test_what_is_not_at_hand_is_left_to_the_trainer(tmp_path: Path) -> None:
    assert difference(tmp_path / "org/model", add_model(tmp_path / "t", WORDS)) is None
