"""The table of methods: its text, its rows, its methods."""

import json
from pathlib import Path

import pytest

from examples.compression import table
from examples.compression.table import SIZES, Shape, as_markdown, groups
from examples.compression.text import GIVEN, LEARNT, make_tokenizer, read_text, write_dataset
from tests.trainer.compress.world import write_dataset as write_rows
from tests.trainer.compress.world import write_model as write_student
from tests.trainer.compress.world import write_questions
from trainer.data import read_records
from trainer.measurement import Estimate, wilson
from trainer.spec import CompressSpec


def test_a_token_is_a_byte_and_text_comes_back() -> None:
    tokenizer, text = make_tokenizer(), "To be, or not:\n  a café — 1 €"
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_rows_are_neighbouring_characters_of_the_text(tmp_path: Path) -> None:
    text = "".join(chr(97 + number % 26) for number in range(3000))
    dataset = write_dataset(text, tmp_path / "data", 24)
    train, held = (read_records(dataset, split) for split in ("train", "validation"))
    assert len(held) >= 1
    assert len(train) > 5 * len(held)
    for row in (*train, *held):
        given, learnt = row.prompt[-1].content, row.completion[-1].content
        assert (len(given), len(learnt)) == (GIVEN, LEARNT)
        assert given + learnt in text
    assert write_dataset("other", tmp_path / "data", 24) == dataset


def test_without_a_file_there_is_text() -> None:
    assert len(read_text(None)) > 10_000


def test_every_method_parses_with_its_floor_first() -> None:
    for size in SIZES.values():
        made = {
            name: CompressSpec.model_validate({"stages": stages})
            for name, stages in groups(size, 1e-4, Shape(size.layers, 160))
        }
        names = list(made)
        for floor, better in (("magnitude", "wanda"), ("SVD", "ASVD"), ("PTQ rtn", "PTQ gptq")):
            assert names.index(floor) < names.index(better)
        kinds = {stage.kind for spec in made.values() for stage in spec.stages}
        structured = {"width"} | ({"depth"} if size.layers > 1 else set())
        assert structured | {"magnitude", "svd", "tensor", "ptq", "qat", "qaf"} <= kinds


def test_the_table_has_a_line_for_each_model() -> None:
    figure = Estimate(value=1.5, low=1.25, high=1.75, rows=4).model_dump()
    row = {"method": "SVD", "ratio": "0.4", "nats": figure, "kl": figure, "bytes": 1234}
    line = as_markdown([{**row, "accuracy": {}}]).splitlines()[-1]
    assert line == "| SVD | 0.4 | 1.500 (1.250 to 1.750) | 1.5000 (1.2500 to 1.7500) | 1,234 |"
    asked = as_markdown([{**row, "accuracy": {"cot": wilson(50, 100).model_dump()}}])
    assert "| accuracy, cot | bytes |" in asked
    assert "| 50.0% (40.4% to 59.6%) | 1,234 |" in asked
    assert len({line.count("|") for line in asked.splitlines()}) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")
def test_a_student_of_ones_own_is_measured_with_its_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By two of the methods; the others take their turn in the table itself."""
    made = {"model": write_student(tmp_path / "m"), "dataset": write_rows(tmp_path / "d")}
    questions = write_questions(tmp_path / "q.jsonl", 4)
    words = [f"--{name}={value}" for name, value in made.items()]
    out = tmp_path / "out"
    words += [f"--out={out}", f"--evaluation={questions}", "--size=smoke"]
    table.main([*words, "--only", "magnitude", "PTQ rtn"])
    found = json.loads((out / "table.json").read_text("utf-8"))
    assert [row["method"] for row in found] == [
        *("uncompressed", "magnitude", "magnitude", "PTQ rtn"),
    ]
    assert all(set(row["accuracy"]) == {"cot", "icl"} for row in found)
    assert found[0]["kl"]["value"] == pytest.approx(0, abs=1e-6)
    assert found[3]["bytes"] < found[0]["bytes"]

    monkeypatch.setattr(table, "read_rows", None)  # Nothing is measured again.
    table.main([*words, "--only", "magnitude", "PTQ rtn"])
    assert json.loads((out / "table.json").read_text("utf-8")) == found

    with pytest.raises(SystemExit):
        table.main([words[0], f"--out={out}"])
    with pytest.raises(SystemExit):
        table.main([*words, "--only", "QAT", "magic"])
    assert "--only: there is no magic" in capsys.readouterr().err
