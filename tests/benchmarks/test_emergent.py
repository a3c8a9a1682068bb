"""The study of emergent abilities: what is asked, what is trained on, what is told. The study
itself: `python -m benchmarks.emergent --smoke --out DIR`."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from benchmarks.emergent import ARMS, SMOKE, spec_of, table
from benchmarks.emergent_data import (
    SHOWN,
    _direct,
    instructions,
    mappings,
    record_of,
    stories,
    write_dataset,
)
from prompts.dataset import read_rows
from prompts.record import Kind
from trainer.methods import METHODS
from trainer.spec import TrainSpec


def test_every_arm_is_a_training_that_finds_its_rows(tmp_path: Path) -> None:
    asked = {"cot": stories(3), "direct": stories(3), "icl": mappings(3), "if": instructions(3)}
    kinds = {"cot": Kind.COT, "direct": Kind.COT, "icl": Kind.ICL, "if": Kind.IF}
    for arm in ARMS:
        made = spec_of(tmp_path, arm, 3, SMOKE, 2)
        spec = TypeAdapter[TrainSpec](TrainSpec).validate_python(made)
        assert (spec.optimization.seed, spec.optimization.threads) == (3, 2)
        rows = [record_of(one, kinds[arm.dataset], "said", 1) for one in asked[arm.dataset]]
        assert len(METHODS[spec.method].select(spec, rows)) == 3


def test_demonstrations_are_of_the_querys_task_and_never_the_query() -> None:
    for one in mappings(40):
        query = json.loads(one.seed)
        assert len(set(one.demo_ids)) == SHOWN
        assert query["id"] not in one.demo_ids
        assert all(
            demo.rpartition("-")[0] == query["id"].rpartition("-")[0] for demo in one.demo_ids
        )
        assert one.prompt.endswith(f"Input: {query['input']}\nOutput:")
        assert one.prompt.count("Output: ") == SHOWN
    assert mappings(5) == mappings(5)


def test_direct_rows_are_the_same_problems_with_the_answer_alone(tmp_path: Path) -> None:
    asked = stories(12)
    steps = [record_of(one, Kind.COT, "Some steps.", n) for n, one in enumerate(asked)]
    write_dataset(tmp_path / "cot", steps)
    _direct(tmp_path)
    rows = list(read_rows(tmp_path / "direct", "train"))
    assert {row.id for row in rows} == {row.id for row in read_rows(tmp_path / "cot", "train")}
    assert all(row.completion[0].content == f"The answer is {row.gold}." for row in rows)
    assert len(list(read_rows(tmp_path / "direct", "validation"))) == 2


def test_the_table_has_both_ends() -> None:
    ends = {("base", "icl"): 0.1, ("teacher", "icl"): 0.9}
    told = table({"icl: meta-ICT": [0.4, 0.6]}, ends)
    assert "| icl: meta-ICT | 50.0% ± 14.1% (2) | 10.0% | 90.0% |" in told
    with pytest.raises(KeyError):
        table({"if: a": [0.5]}, ends)
