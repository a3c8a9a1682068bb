"""The table of methods: its text, its rows, its methods."""

from pathlib import Path

from examples.compression.table import SIZES, as_markdown, groups
from examples.compression.text import GIVEN, LEARNT, make_tokenizer, read_text, write_dataset
from trainer.data import read_records
from trainer.measurement import Estimate
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
            name: CompressSpec.model_validate({"stages": stages}) for name, stages in groups(size)
        }
        names = list(made)
        for floor, better in (("magnitude", "wanda"), ("SVD", "ASVD"), ("PTQ rtn", "PTQ gptq")):
            assert names.index(floor) < names.index(better)
        kinds = {stage.kind for spec in made.values() for stage in spec.stages}
        assert {"magnitude", "svd", "ptq", "qat", "qaf"} <= kinds


def test_the_table_has_a_line_for_each_model() -> None:
    figure = Estimate(value=1.5, low=1.25, high=1.75, rows=4).model_dump()
    row = {"method": "SVD", "ratio": "0.4", "nats": figure, "kl": figure, "bytes": 1234}
    line = as_markdown([row]).splitlines()[-1]
    assert line == "| SVD | 0.4 | 1.500 (1.250 to 1.750) | 1.5000 (1.2500 to 1.7500) | 1,234 |"
