from typing import get_args

from prompts.demonstrations import SELECTORS, choose, make_pool
from prompts.record import Rejected, Seed
from prompts.spec import IclBuild
from prompts.spec.selectors import SelectorSpec
from prompts.split import input_key, split_of
from prompts.template import compile_template
from tests.prompts.making import labelled, plan_of, spec_of


def chosen(spec: IclBuild, seeds: list[Seed], query: Seed) -> list[str]:
    template = compile_template(spec.template, demonstrations=True)
    found = choose(make_pool(spec, seeds), spec, query, input_key(template, query))
    return [demo["id"] for demo in found]


def test_they_are_distinct_and_a_function_of_seed_and_row() -> None:
    spec, seeds = spec_of("icl", demonstrations=5), labelled(40)
    first = chosen(spec, seeds, seeds[0])
    assert len(set(first)) == 5
    assert first == chosen(spec, seeds, dict(seeds[0]))
    assert first != chosen(spec, seeds, seeds[1])
    assert first != chosen(spec_of("icl", demonstrations=5, selector_seed=1), seeds, seeds[0])


def test_the_query_is_never_among_them_neither_by_id_nor_by_input() -> None:
    spec = spec_of("icl", demonstrations=200)
    seeds = labelled(100)
    for query in seeds[:20]:
        twin = {**query, "id": "twin"}
        ids = chosen(spec, [*seeds, twin], query)
        assert query["id"] not in ids
        assert "twin" not in ids
        same_id = {"id": query["id"], "input": "another", "output": "x"}
        assert query["id"] not in chosen(spec, [same_id], query)


def test_they_come_from_train_only() -> None:
    spec = spec_of("icl", demonstrations=200, split={"validation": 0.3, "test": 0.3})
    template, seeds = compile_template(spec.template, demonstrations=True), labelled(100)
    splits = {s["id"]: split_of(input_key(template, s), spec.split) for s in seeds}
    query = next(seed for seed in seeds if splits[seed["id"]] == "test")
    ids = chosen(spec, seeds, query)
    assert sorted(ids) == sorted(name for name, split in splits.items() if split == "train")


def test_a_group_keeps_to_itself_only_if_asked() -> None:
    seeds = labelled(60)
    tasks = {seed["id"]: seed["task"] for seed in seeds}
    grouped = spec_of("icl", demonstrations=8, group_by="task")
    assert {tasks[name] for name in chosen(grouped, seeds, seeds[0])} == {"t0"}
    assert {tasks[name] for name in chosen(grouped, seeds, seeds[1])} == {"t1"}
    assert {tasks[name] for name in chosen(spec_of("icl", demonstrations=8), seeds, seeds[0])} == {
        "t0",
        "t1",
    }


def test_unlabelled_seeds_are_no_demonstrations() -> None:
    spec = spec_of("icl", demonstrations=4)
    assert chosen(spec, [{"id": "a", "input": "x"}], {"id": "b", "input": "y"}) == []


def test_every_entry_is_equally_likely() -> None:
    spec, seeds = spec_of("icl", demonstrations=2, split={"validation": 0, "test": 0}), labelled(10)
    pool, counts = make_pool(spec, seeds), dict.fromkeys((seed["id"] for seed in seeds), 0)
    for number in range(2000):
        for demo in choose(pool, spec, {"id": f"row{number}", "input": "none"}, ""):
            counts[demo["id"]] += 1
    assert min(counts.values()) > 330  # expected 400, standard deviation 18
    assert max(counts.values()) < 470


def test_the_registry_holds_what_the_spec_allows() -> None:
    union = get_args(get_args(SelectorSpec)[0])
    assert set(SELECTORS) == {selector.model_fields["kind"].default for selector in union}


def test_a_row_that_does_not_go_with_its_demonstrations_ends_and_the_build_goes_on() -> None:
    pool = [{**seed, "input": f"{seed['input']} " + "x" * 1_500_000} for seed in labelled(30)]
    step = plan_of(spec_of("icl", demonstrations=4), pool).next({"id": "q", "input": "q"}, [])
    assert isinstance(step, Rejected)
    assert (step.reason, step.prompt) == ("prompt_too_long", ())
    assert "grows beyond" in step.detail
