"""Selectors, orders, budgets and what never serves as a demonstration."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompts.demonstrations import choose, make_pool
from prompts.demonstrations.pool import Vectors
from prompts.overlap import EvaluationSet, evaluation_texts
from prompts.plan import TeacherFacts, make_plan
from prompts.record import Message, Reason, Record, Rejected, Seed
from prompts.split import input_key
from prompts.template import compile_template
from prompts.tools import Tool
from tests.prompts.making import ask, labelled, requests_of, said, spec_of

WORDS = ("red apple", "green apple", "red car", "blue car", "blue boat", "green boat")
NO_SPLIT = {"validation": 0, "test": 0}


def pool_of(count: int = 60) -> list[Seed]:
    return [
        {
            "id": f"d{i}",
            "input": f"{WORDS[i % 6]} number {i}",
            "output": f"label {i % 3}",
            "task": f"t{i % 2}",
        }
        for i in range(count)
    ]


def embed(texts: Sequence[str]) -> Vectors:
    """A stand-in for an embedder: counts of the words of `WORDS`."""
    known = sorted({word for pair in WORDS for word in pair.split()})
    counts = [[text.split().count(word) for word in known] for text in texts]
    return np.asarray(counts, dtype=np.float32) + np.float32(1e-3)


def spec(**fields: Any) -> Any:
    return spec_of("icl", **{"demonstrations": 4, "split": NO_SPLIT, **fields})


def ids(given_spec: Any, seeds: list[Seed], query: Seed) -> list[str]:
    template = compile_template(given_spec.template, demonstrations=True)
    pool = make_pool(given_spec, seeds, embed=embed)
    return [demo["id"] for demo in choose(pool, given_spec, query, input_key(template, query))]


EMBEDDED = {"kind": "embedding", "embedder": "e"}
MMR = {"kind": "mmr", "embedder": "e", "relevance": 0.5}
SELECTORS = ["random", "label_balanced", "bm25", EMBEDDED, MMR]
QUERY = {"id": "q", "input": "a blue boat here"}


@pytest.mark.parametrize("selector", ["bm25", EMBEDDED])
def test_the_most_similar_come_first(selector: Any) -> None:
    seeds = pool_of()
    chosen = ids(spec(selector=selector, demonstrations=15), seeds, QUERY)
    kinds = [WORDS[int(name[1:]) % 6] for name in chosen]
    assert kinds[:10] == ["blue boat"] * 10
    assert "blue boat" not in kinds[10:]
    # Ties: the pool's order.
    assert chosen[:10] == sorted(chosen[:10], key=lambda name: int(name[1:]))


def test_a_pool_without_a_word_is_drawn_from_at_random() -> None:
    marks = [{"id": f"m{place}", "input": "!" * (place + 1), "output": "x"} for place in range(40)]
    wanted = spec(
        selector="bm25",
        template="{% for d in demonstrations %}{{ d.input }}{% endfor %}{{ input }}",
    )
    assert len(set(ids(wanted, marks, {"id": "q", "input": "?"}))) == 4


def test_what_shares_no_word_with_the_query_comes_in_random_order() -> None:
    queries = [{"id": f"q{place}", "input": "zebra"} for place in range(3)]
    drawn = [ids(spec(selector="bm25"), pool_of(), query) for query in queries]
    assert all(len(set(chosen)) == 4 for chosen in drawn)
    assert len({tuple(chosen) for chosen in drawn}) == 3
    assert drawn == [ids(spec(selector="bm25"), pool_of(), query) for query in queries]


@pytest.mark.parametrize("relevance", [0.1, 0.3, 0.7, 1.0])
def test_mmr_is_what_its_definition_says(relevance: float) -> None:
    seeds = pool_of(30)
    unit = embed([seed["input"] for seed in seeds])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    query = embed([QUERY["input"]])[0]
    query /= np.linalg.norm(query)
    chosen: list[int] = []

    def score(place: int) -> float:
        near = max((float(unit[place] @ unit[one]) for one in chosen), default=0.0)
        return relevance * float(unit[place] @ query) - (1 - relevance) * near

    for _ in range(6):
        left = [place for place in range(30) if place not in chosen]
        chosen.append(max(left, key=lambda place: (round(score(place), 4), -place)))
    got = ids(spec(selector={**MMR, "relevance": relevance}, demonstrations=6), seeds, QUERY)
    assert [WORDS[int(name[1:]) % 6] for name in got] == [WORDS[place % 6] for place in chosen]


def test_mmr_shows_more_kinds_than_similarity_alone() -> None:
    seeds = pool_of()
    similar, apart = (
        {WORDS[int(name[1:]) % 6] for name in ids(spec(selector=one), seeds, QUERY)}
        for one in (EMBEDDED, {**MMR, "relevance": 0.3})
    )
    assert len(apart) > len(similar) == 1


def test_label_balance_takes_each_label_as_often() -> None:
    seeds = [
        *pool_of(60),
        *({"id": f"x{i}", "input": f"x {i}", "output": "rare"} for i in range(2)),
    ]
    labels = {seed["id"]: seed["output"] for seed in seeds}
    chosen = ids(spec(selector="label_balanced", demonstrations=9), seeds, QUERY)
    counts = Counter(labels[name] for name in chosen)
    assert counts["rare"] == 2
    assert sorted(counts.values()) == [2, 2, 2, 3]


@pytest.mark.parametrize("selector", SELECTORS, ids=str)
def test_no_selector_shows_the_query_or_another_group(selector: Any) -> None:
    seeds = pool_of()
    query = {**seeds[4], "id": "other-name"}
    chosen = ids(spec(selector=selector, demonstrations=29, group_by="task"), seeds, query)
    assert len(chosen) == len(set(chosen)) == 29
    assert "d4" not in chosen
    assert all(int(name[1:]) % 2 == 0 for name in chosen)
    assert chosen == ids(
        spec(selector=selector, demonstrations=29, group_by="task"), [dict(s) for s in seeds], query
    )


def test_an_evaluation_set_is_neither_shown_nor_asked() -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    seeds = [*labelled(30), {"id": "long", "input": f"And {long} too", "output": "x"}]
    known = EvaluationSet("exam", [("e1", "IN 7!"), ("e2", long)])
    given_spec = spec(demonstrations=28)
    pool = make_pool(given_spec, seeds, [known])
    shown = {entry["id"] for entry in pool.entries}
    assert shown == {f"d{i}" for i in range(30)} - {"d7"}
    assert pool.contaminated == 2
    plan = make_plan(spec(demonstrations=1), seeds, TeacherFacts("teacher"), [known])
    for place in (7, 30):
        row = plan.next(seeds[place], [])
        assert isinstance(row, Rejected)
        assert row.reason == Reason.CONTAMINATED
        assert "of exam" in row.detail
    assert isinstance(plan.next(seeds[8], []), tuple)


def test_an_evaluation_row_of_two_fields_is_neither_shown_nor_asked() -> None:
    shown = "{% for demo in demonstrations %}{{ demo.input }} = {{ demo.output }}\n{% endfor %}"
    template = shown + "{{ instruction }}: {{ input }} ="
    words = ("red apple", "green pear", "blue plum")
    seeds: list[Seed] = [
        {"id": word, "instruction": "Translate to French.", "input": word, "output": "x"}
        for word in words
    ]
    exam = [{"id": "e1", "instruction": "Translate to French.", "input": "Red apple"}]
    known = EvaluationSet("exam", evaluation_texts(exam))
    pool = make_pool(spec(template=template, split=NO_SPLIT), seeds, [known])
    assert {entry["id"] for entry in pool.entries} == set(words[1:])
    one = spec(template=template, demonstrations=1, split=NO_SPLIT)
    plan = make_plan(one, seeds, TeacherFacts("teacher"), [known])
    row = plan.next(seeds[0], [])
    assert isinstance(row, Rejected)
    assert row.reason == Reason.CONTAMINATED
    assert isinstance(plan.next(seeds[1], []), tuple)


def test_fixed_sets_are_the_same_bytes_and_one_prefix_for_a_group() -> None:
    seeds = pool_of()
    plan = make_plan(spec(fixed="per_group", group_by="task"), seeds, TeacherFacts("teacher"))
    queries = [{"id": f"q{i}", "input": f"query {i}", "task": f"t{i % 2}"} for i in range(8)]
    requests = [requests_of(plan, query)[0] for query in queries]
    for parity in (0, 1):
        group = requests[parity::2]
        assert len({one.prefix for one in group}) == 1
        beginnings = {one.messages[0].content.rpartition("Input: query")[0] for one in group}
        assert len(beginnings) == 1
    assert requests[0].prefix != requests[1].prefix
    assert plan.places(queries) == [0, 2, 4, 6, 1, 3, 5, 7]
    free = make_plan(spec(), seeds, TeacherFacts("teacher"))
    assert requests_of(free, queries[0])[0].prefix is None
    assert free.places(queries) == list(range(8))


def test_a_row_that_is_in_the_fixed_set_sees_the_next_in_its_place() -> None:
    seeds = pool_of()
    plan = make_plan(spec(fixed="per_group"), seeds, TeacherFacts("teacher"))
    _, row = ask(plan, QUERY, lambda request: "x")
    assert isinstance(row, Record)
    inside = next(seed for seed in seeds if seed["id"] == row.demo_ids[0])
    _, other = ask(plan, inside, lambda request: "x")
    assert isinstance(other, Record)
    assert other.demo_ids[:3] == row.demo_ids[1:]
    assert inside["id"] not in other.demo_ids


def test_orders() -> None:
    seeds = pool_of()
    by_order = {}
    for order in ("as_selected", "reversed", "random"):
        plan = make_plan(spec(selector="bm25", order=order), seeds, TeacherFacts("teacher"))
        row = plan.next(QUERY, said(QUERY, "x"))
        assert isinstance(row, Record)
        by_order[order] = list(row.demo_ids)
    assert by_order["reversed"] == by_order["as_selected"][::-1]
    assert sorted(by_order["random"]) == sorted(by_order["as_selected"])
    assert by_order["random"] not in (by_order["as_selected"], by_order["reversed"])


def count_words(messages: tuple[Message, ...], tools: tuple[Tool, ...]) -> int:
    return sum(len(message.content.split()) for message in messages)


@given(st.integers(1, 60))
def test_a_token_budget_keeps_the_best_that_fit(limit: int) -> None:
    facts = TeacherFacts("teacher", count_tokens=count_words)
    seeds = pool_of()
    full = ids(spec(selector="bm25"), seeds, QUERY)
    plan = make_plan(spec(selector="bm25", demonstration_tokens=limit), seeds, facts)
    row = plan.next(QUERY, [])
    each = 8  # Input: blue boat number 4 / Output: label 1
    if limit < each:
        assert isinstance(row, Rejected)
        assert row.reason == Reason.TOO_FEW_DEMONSTRATIONS
        assert f"within {limit} tokens" in row.detail
        return
    _, record = ask(plan, QUERY, lambda request: "x")
    assert list(record.demo_ids) == full[: min(4, limit // each)]


def test_a_token_budget_needs_a_tokenizer_and_embeddings_an_embedder() -> None:
    with pytest.raises(ValueError, match="needs the tokenizer of teacher 'teacher'"):
        make_plan(spec(demonstration_tokens=9), pool_of(), TeacherFacts("teacher"))
    with pytest.raises(ValueError, match="needs embeddings"):
        make_plan(spec(selector=EMBEDDED), pool_of(), TeacherFacts("teacher"))


def test_queries_are_embedded_together_before_they_are_asked_one_by_one() -> None:
    asked: list[list[str]] = []

    def note(texts: Sequence[str]) -> Vectors:
        asked.append(list(texts))
        return embed(texts)

    plan = make_plan(spec(selector=EMBEDDED), pool_of(), TeacherFacts("teacher"), embed=note)
    queries = [{"id": f"q{i}", "input": f"red {i}"} for i in range(3)]
    plan.prepare(queries)
    assert asked == [["red 0", "red 1", "red 2"]]
    assert plan.slow


def test_few_shot_chains_of_thought_show_rationales() -> None:
    seeds = [
        {"id": f"p{i}", "question": f"{i} + 1?", "rationale": f"One after {i}.", "answer": i + 1}
        for i in range(20)
    ]
    given_spec = spec_of("cot", demonstrations=2, pool="file", split=NO_SPLIT, selector="bm25")
    plan = make_plan(given_spec, seeds, TeacherFacts("teacher"))
    _, row = ask(
        plan, {"id": "q", "question": "Now 7 + 1?"}, lambda request: "So. The answer is 8."
    )
    assert isinstance(row, Record)
    assert row.demo_ids[0] == "p7"
    assert "7 + 1?\nOne after 7. The answer is 8.\n\n" in row.prompt[0].content
    assert json.loads(row.seed) == {"id": "q", "question": "Now 7 + 1?"}
