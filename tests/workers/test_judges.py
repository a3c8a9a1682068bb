"""Checks of the whole dataset, asked for by a build's spec."""

import pytest

from prompts.record import Record
from service.problems import Problem
from service.site import Site
from tests.workers.conftest import dataset_of, register, rows_of, run_build, submit, sums, upload
from tests.workers.writing_teacher import writing_teacher


def say(prompt: str) -> str:
    numbers = [int(word) for word in prompt.split("?")[0].split() if word.isdigit()]
    return f"The answer is {sum(numbers)}"


def test_a_later_dataset_takes_nothing_of_an_earlier_one_nor_of_the_evaluation(site: Site) -> None:
    seeds = sums(30)
    near = {"jaccard": 0.95, "of": "prompt", "shingle_words": 1}
    with writing_teacher(say) as teacher:
        register(site, teacher.url)
        first = submit(site, seeds[:10], template="{{ question }}")
        run_build(site, first)
        evaluation = upload(site, [{"id": "e1", "question": seeds[20]["question"]}])
        against = dataset_of(site, first).name
        later = submit(
            site,
            seeds,
            template="{{ question }}",
            decontaminate=evaluation,
            near_duplicates={**near, "against": [against]},
        )
        run_build(site, later)
    rows = {row.id: row for row in rows_of(dataset_of(site, later))}
    rejected = {name: row.reason for name, row in rows.items() if not isinstance(row, Record)}
    assert rejected["s00020"] == "contaminated"
    assert {f"s{n:05d}" for n in range(10)} <= rejected.keys()
    assert rejected["s00003"] == "near_duplicate"
    assert "s00025" not in rejected


def test_an_evaluation_set_without_questions_is_refused_at_submit(site: Site) -> None:
    register(site, "http://127.0.0.1:1")
    with pytest.raises(Problem) as refused:
        submit(site, sums(3), decontaminate=upload(site, [{"id": "e1", "answer": "5"}]))
    assert "build.decontaminate" in [fault.location for fault in refused.value.faults]
