from typing import Any

import pytest

from prompts.intake import (
    PoolError,
    SpecError,
    check_build,
    limit_faults,
    read_pool,
    required_seed_fields,
)
from prompts.seeds import SeedError
from tests.prompts.making import labelled, lines_of, questions, spec_of


def test_the_fields_that_a_build_needs() -> None:
    assert required_seed_fields(spec_of("cot")) == {"question"}
    assert required_seed_fields(spec_of("if", system="You are {{ who }}.")) == {
        "instruction",
        "who",
    }
    assert required_seed_fields(spec_of("icl")) == {"input"}
    strict = spec_of("icl", verify=True, group_by="task", template="{{ id }}", demonstrations=0)
    assert required_seed_fields(strict) == {"output", "task"}


def test_good_seeds_are_counted() -> None:
    assert check_build(spec_of("cot"), lines_of(*questions(7))) == 7
    lines = lines_of(*labelled(30))
    assert check_build(spec_of("icl"), lines, lines) == 30


@pytest.mark.parametrize(
    ("fields", "seed", "words"),
    [
        ({}, {"q": "?"}, "no field 'question'"),
        ({}, {"question": "?", "answer": "unknown"}, "field 'answer': the gold answer 'unknown'"),
        ({"gold_field": "gold"}, {"question": "?", "gold": True}, "field 'gold'"),
        ({"template": "{{ question.text }}"}, {"question": "?"}, "can't be rendered"),
        ({"system": "{{ question + 1 }}"}, {"question": "?"}, "can't be rendered"),
    ],
)
def test_a_bad_seed_is_named_by_line(
    fields: dict[str, Any], seed: dict[str, Any], words: str
) -> None:
    good = {"question": {"text": "?"} if "template" in fields else "?", "answer": 1, "gold": 1}
    if "system" in fields:
        good["question"] = 1
    with pytest.raises(SeedError, match="line 2: ") as caught:
        check_build(spec_of("cot", **fields), lines_of(good, seed))
    assert words in str(caught.value)


def test_a_gold_answer_that_nothing_compares_may_be_anything() -> None:
    lines = lines_of({"question": "?", "answer": "unknown"})
    assert check_build(spec_of("cot", verify="none"), lines) == 1


def test_a_pool_comes_from_the_seeds_that_have_an_output() -> None:
    lines = lines_of(*labelled(30), {"id": "query", "input": "x"}, {"input": "y", "output": ""})
    assert [seed["id"] for seed in read_pool(spec_of("icl"), lines)] == [f"d{i}" for i in range(30)]


def test_every_line_of_a_pool_file_must_be_a_demonstration() -> None:
    spec = spec_of("icl", pool="p", group_by="task")
    for field in ("input", "output", "task"):
        row = {**labelled(1)[0], "id": "x"}
        del row[field]
        with pytest.raises(SeedError, match=f"line 31: has no field '{field}'"):
            read_pool(spec, lines_of(*labelled(30), row))


def test_seeds_lacking_what_the_template_shows_of_demonstrations_are_refused() -> None:
    template = "{% for d in demonstrations %}{{ d.input }}{{ d.hint }}{% endfor %}{{ input }}"
    with pytest.raises(SeedError, match="line 1: has no field 'hint', which the template shows"):
        read_pool(spec_of("icl", template=template), lines_of(*labelled(30)))


def test_a_pool_smaller_than_a_prompt_is_refused() -> None:
    spec = spec_of("icl", demonstrations=4)
    lines = lines_of(*labelled(3))
    with pytest.raises(PoolError, match="asks for 4 demonstrations"):
        check_build(spec, lines, lines)
    with pytest.raises(PoolError, match="the file holds no seeds"):
        check_build(spec, lines, [])
    with pytest.raises(ValueError, match="needs a pool"):
        check_build(spec, lines)


def test_no_demonstrations_need_no_pool() -> None:
    assert check_build(spec_of("icl", demonstrations=0), lines_of(*labelled(3))) == 3


def test_what_the_teacher_cannot_give_is_refused() -> None:
    spec = spec_of("cot", sampling={"max_tokens": 100})
    assert not [*limit_faults(spec, "teacher", None), *limit_faults(spec, "teacher", 101)]
    ((field, problem),) = limit_faults(spec, "teacher", 100)
    assert (field, "holds 100 tokens" in problem) == ("sampling.max_tokens", True)


def test_a_template_that_says_the_same_to_all_is_refused() -> None:
    with pytest.raises(SpecError, match="template: shows no field of the seeds"):
        check_build(spec_of("cot", template="Write a number."), lines_of(*questions(3)))
    assert check_build(spec_of("if", template="Go on.", turns="t"), lines_of(*TALKS)) == 2
    of_the_system = spec_of("cot", template="Write a number.", system="{{ question }}")
    assert check_build(of_the_system, lines_of(*questions(3))) == 3


TALKS = [
    {"t": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "Yes."}]}
    for n in range(2)
]


def test_more_rows_than_seeds_are_refused() -> None:
    lines = lines_of(*questions(3))
    assert check_build(spec_of("cot", target_rows=3), lines) == 3
    with pytest.raises(SpecError, match="target_rows: 4 rows can't come of 3 seeds"):
        check_build(spec_of("cot", target_rows=4), lines)
    assert check_build(spec_of("cot", target_rows=4, incremental="d@1"), lines) == 3
