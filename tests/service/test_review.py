"""Verdicts of a person make a new version; versions are compared."""

import json
from typing import Any

import httpx
import pytest

from prompts.dataset import assemble, read_manifest, read_rejected, read_rows, write_chunk
from prompts.record import Call, Record, Rejected, ToolCall
from prompts.split import SPLITS
from service.problems import Problem
from service.review import Review, difference, review
from service.site import Site
from service.tables import Artifact
from tests.prompts.making import TEACHER, ask, plan_of, spec_of
from tests.service.test_again import finished

VERDICTS = [
    {"id": "r0", "accept": False, "note": "too short"},
    {"id": "r1", "accept": True},
    {"id": "r3", "accept": True},
]


def dataset_rows(site: Site, reference: str) -> tuple[Any, dict[str, Any]]:
    with site.sessions.reading() as session:
        path = site.store.path(site.store.resolve(session, reference, "dataset"))
    return read_manifest(path), {row.id: row for row in read_rejected(path)}


def made_with_recipe(site: Site, seeds: str) -> str:
    """A dataset of four rows whose recipe is known; its id."""
    finished(site, seeds)
    with site.sessions.reading() as session:
        found = site.store.resolve(session, "dataset", "dataset")
    # What a build writes beside its rows.
    recipe = f"build: {{kind: cot, teacher: t, seeds: {seeds}}}\n"
    (site.store.path(found) / "recipe.yaml").write_text(recipe)
    return found.id


def test_verdicts_move_rows_and_keep_their_reason(site: Site, seeds: str) -> None:
    old = made_with_recipe(site, seeds)
    made = review(site, "dataset", Review.model_validate({"verdicts": VERDICTS}))
    assert (made.version, made.inputs, made.summary["reviewed"]) == (2, [old], 3)
    manifest, rejected = dataset_rows(site, made.id)
    assert (manifest.counts.accepted, manifest.counts.rejected) == (2, 2)
    assert (rejected["r0"].reason, rejected["r0"].detail) == ("by_hand", "too short")
    assert rejected["r0"].raw == ("The answer is 0.",)
    assert rejected.keys() == {"r0", "r2"}
    first, _ = dataset_rows(site, old)
    assert first.counts.accepted == 2  # The version before stands.


def test_versions_are_compared(site: Site, seeds: str) -> None:
    old = made_with_recipe(site, seeds)
    new = review(site, old, Review.model_validate({"verdicts": VERDICTS})).id
    found = difference(site, old, new)
    assert (found.same, found.added, found.removed, found.changed) == (1, 1, 1, 0)
    assert (found.added_ids, found.removed_ids, found.changed_ids) == (("r1",), ("r0",), ())


async def test_reviews_and_differences_over_rest(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    old = made_with_recipe(site, seeds)
    made = await api.post(f"/api/v1/datasets/{old}/review", json={"verdicts": VERDICTS})
    assert (made.status_code, made.json()["version"]) == (201, 2)
    told = (await api.get("/api/v1/datasets/dataset@2/diff", params={"base": old})).json()
    assert told["removed"] == 1
    for verdicts, words in (
        ([{"id": "nobody", "accept": True}], "there is no row nobody"),
        ([VERDICTS[0], VERDICTS[0]], "a row comes twice"),
    ):
        answer = await api.post(f"/api/v1/datasets/{old}/review", json={"verdicts": verdicts})
        assert (answer.status_code, words in answer.json()["detail"]) == (422, True)
    with site.sessions.reading() as session:
        assert session.query(Artifact).filter_by(kind="dataset").count() == 2


JUDGE = {"kind": "judge", "teacher": "j", "rubric": "Is it kind?", "threshold": 7}
OPINION = '{"score": 2, "reason": "rude"}'
TOOL = {"type": "function", "function": {"name": "look_up"}}


def published(site: Site, rows: list[Record | Rejected], build: dict[str, Any]) -> str:
    """A dataset of these rows, built by such a spec; its id."""
    folder = site.settings.data_dir / f"made-{rows[0].id}"
    chunk = write_chunk(folder / "chunk.parquet", rows)
    assemble(folder / "dataset", [chunk.path], recipe={"build": build}, seeds=len(rows))
    with site.sessions.writing.begin() as session:
        return site.store.publish(
            session, "dataset", "mine", folder / "dataset", summary={}, inputs=[]
        ).id


def accepted_by_hand(site: Site, reference: str, row: str) -> Record:
    """The row in the version that accepts it."""
    made = review(site, reference, Review.model_validate({"verdicts": [said_yes(row)]}))
    with site.sessions.reading() as session:
        path = site.store.path(site.store.resolve(session, made.id, "dataset"))
    return next(each for part in SPLITS for each in read_rows(path, part) if each.id == row)


def said_yes(row: str) -> dict[str, Any]:
    return {"id": row, "accept": True}


def built(answers: dict[tuple[int, int], Call | str], **fields: Any) -> tuple[Rejected, Any]:
    """A rejected row whose calls, by step and sample, were answered so; its spec as written."""
    seed = {"id": "q", "question": "What is 3 + 4?", "answer": 7, "instruction": "Add 3 and 4."}
    spec = spec_of(fields.pop("kind"), **fields)
    _, row = ask(plan_of(spec), seed, lambda request: answers[request.step, request.sample])
    assert isinstance(row, Rejected)
    return row, spec.model_dump(mode="json")


def test_accepting_what_a_judge_disliked_takes_the_answer_and_not_the_opinion(site: Site) -> None:
    thought = "<think>seven?</think>Three and four. The answer is 7."
    answers: dict[tuple[int, int], Call | str] = {(0, 0): thought, (2, 0): OPINION}
    row, build = built(answers, kind="cot", checks=[JUDGE])
    assert (row.reason, row.raw) == ("low_score", (thought, OPINION))
    taken = accepted_by_hand(site, published(site, [row], build), "q")
    assert taken.completion[0].content == "Three and four. The answer is 7."
    assert (taken.answer, taken.reasoning) == ("7", "seven?\nThree and four.")
    assert [(one.teacher, one.score) for one in taken.judgements] == [("j", 2.0)]
    # What else an accepted row says of itself.
    assert taken.teacher_revision == TEACHER.revision
    assert json.loads(taken.sampling)["max_tokens"] > 0


def test_accepting_one_of_several_samples_takes_the_one_that_its_answer_is_of(site: Site) -> None:
    texts = ("It is 8. The answer is 8.", "It is 9. The answer is 9.", "no idea")
    answers: dict[tuple[int, int], Call | str] = {(0, n): text for n, text in enumerate(texts)}
    row, build = built(answers, kind="cot", samples=3, sampling={"temperature": 1.0})
    assert (row.answer, row.raw) == ("8", texts)
    taken = accepted_by_hand(site, published(site, [row], build), "q")
    assert (taken.completion[0].content, taken.answer) == (texts[0], "8")


def test_accepting_a_call_of_functions_keeps_the_calls_and_the_functions(site: Site) -> None:
    function = {"name": "look_up", "arguments": "{}"}
    call = ToolCall.model_validate({"id": "c1", "function": function})
    said = Call(row="q", text="", tool_calls=(call,), finish_reason="tool_calls")
    answers: dict[tuple[int, int], Call | str] = {(0, 0): said, (2, 0): OPINION}
    row, build = built(answers, kind="if", tools=[TOOL], checks=[JUDGE])
    taken = accepted_by_hand(site, published(site, [row], build), "q")
    assert taken.completion[0].tool_calls == (call,)
    assert taken.finish_reason == "tool_calls"
    assert json.loads(taken.tools or "[]")[0]["function"]["name"] == "look_up"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        # As rows were written before answers were kept apart: which text is the answer is unknown.
        ({"completion": ()}, "which of its raw texts is its answer is not known"),
        ({"completion": (), "raw": ()}, "nothing was answered"),
        ({"reason": "contaminated"}, "evaluation set"),
    ],
)
def test_what_has_no_answer_of_its_own_or_would_leak_is_refused(
    site: Site, changes: dict[str, Any], words: str
) -> None:
    row, build = built({(0, 0): "The answer is 8."}, kind="cot")
    dataset = published(site, [row.model_copy(update=changes)], build)
    with pytest.raises(Problem, match=words):
        accepted_by_hand(site, dataset, "q")


def test_what_is_accepted_by_hand_meets_the_leak_guard_too(site: Site) -> None:
    with site.sessions.writing.begin() as session:
        folder = site.settings.data_dir / "exam.jsonl"
        folder.write_text('{"id": "e1", "question": "the answer is 8"}\n')
        exam = site.store.publish(session, "file", "exam.jsonl", folder, summary={}, inputs=[]).id
    row, build = built({(0, 0): "The answer is 8."}, kind="cot", decontaminate="exam")
    dataset = published(site, [row], build | {"decontaminate": exam})
    with pytest.raises(Problem, match="exact overlap with exam"):
        accepted_by_hand(site, dataset, "q")
    gone = published(site, [row.model_copy(update={"id": "r"})], build)
    with pytest.raises(Problem, match="evaluation set 'exam'"):
        accepted_by_hand(site, gone, "r")


def test_all_verdicts_are_applied_or_none_and_each_that_cannot_be_is_named(
    site: Site, seeds: str
) -> None:
    row, build = built({(0, 0): "The answer is 8."}, kind="cot")
    leaks = [
        row.model_copy(update={"id": name, "reason": "contaminated"}) for name in ("first", "last")
    ]
    fine = row.model_copy(update={"id": "fine"})
    dataset = published(site, [*leaks, fine], build)
    given = [said_yes(name) for name in ("fine", "first", "nobody", "last")]
    with pytest.raises(Problem) as problem:
        review(site, dataset, Review.model_validate({"verdicts": given}))
    assert problem.value.title == "3 of 4 verdicts can't stand: none was applied"
    places = {fault.location: fault.message for fault in problem.value.faults}
    assert places.keys() == {"verdicts.1", "verdicts.2", "verdicts.3"}
    assert "row 'first' can't be accepted" in places["verdicts.1"]
    assert "there is no row nobody" in places["verdicts.2"]
    assert "row 'last' can't be accepted" in places["verdicts.3"]
    many = Review.model_validate({"verdicts": [said_yes(f"nobody-{n}") for n in range(30)]})
    with pytest.raises(Problem) as problem:
        review(site, dataset, many)
    assert [fault.message for fault in problem.value.faults][-1] == "… and 10 more"
    # Without them the rest stands.
    assert accepted_by_hand(site, dataset, "fine").completion[0].content == "The answer is 8."
