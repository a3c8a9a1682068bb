import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from service import preflight, teachers
from service.probe import Probe
from service.problems import Problem
from service.site import Site
from tests.service.fakes import FakeTeacher
from tests.service.given import add_file, add_model, add_teacher, build, spec
from trainer.spec import TrainSpec
from workers.inputs import Inputs, compress_paths, train_paths

LABELLED = "".join(f'{{"input": "i{n}", "output": "o{n}"}}\n' for n in range(40))


def faults(site: Site, **fields: Any) -> dict[str, str]:
    """What is refused, by location."""
    with pytest.raises(Problem) as raised:
        preflight.check(site, spec(**fields))
    assert raised.value.status == 422
    return {fault.location: fault.message for fault in raised.value.faults}


def of_build(site: Site, **fields: Any) -> dict[str, str]:
    return faults(site, kind="build", build=fields)


@pytest.fixture
def teacher(site: Site) -> None:
    add_teacher(site, probe=Probe(ok=True, context_tokens=512, max_logprobs=5))


@pytest.mark.usefixtures("teacher")
def test_references_become_ids(site: Site, seeds: str) -> None:
    by_name = spec(kind="build", build=build("seeds.jsonl"))
    assert preflight.check(site, by_name).model_dump()["build"]["seeds"] == seeds


@pytest.mark.usefixtures("teacher")
def test_unknown_seeds(site: Site) -> None:
    assert "no file 'file-x'" in of_build(site, **build("file-x"))["build.seeds"]


@pytest.mark.usefixtures("teacher")
def test_a_line_without_a_field_of_the_template(site: Site) -> None:
    bad = add_file(site, '{"question": "1?", "answer": "1"}\n{"q": "2?"}\n')
    assert "line 2: has no field 'question'" in of_build(site, **build(bad))["build.seeds"]


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no seeds"),
        ('{"question": "1"}\n{"question"\n', "line 2"),
        ('{"id": "1", "question": "1"}\n{"id": "1", "question": "2"}\n', "line 2"),
    ],
)
def test_unusable_seeds(site: Site, text: str, message: str) -> None:
    assert message in of_build(site, **build(add_file(site, text)))["build.seeds"]


@pytest.mark.usefixtures("teacher")
def test_more_logprobs_than_the_teacher_allows(site: Site, seeds: str) -> None:
    found = of_build(site, **build(seeds, signal={"top_k": 6}))
    assert "gives 5 log-probs" in found["build.signal"]
    preflight.check(site, spec(kind="build", build=build(seeds, signal={"top_k": 5})))


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize(
    ("fields", "location", "words"),
    [
        ({"verify": {"kind": "python", "function": "os:kill"}}, "build.verify", "not allowed"),
        (
            {"checks": [{"kind": "language", "languages": ["zz"]}]},
            "build.checks.0.languages",
            "unknown: zz",
        ),
        (
            {"near_duplicates": {"jaccard": 0.997}},
            "build.near_duplicates.jaccard",
            "ask for more permutations",
        ),
        (
            {"checks": [{"kind": "judge", "rubric": "r", "threshold": 5, "teacher": "nobody"}]},
            "build.checks.0.teacher",
            "nobody",
        ),
        (
            {
                "demonstrations": 2,
                "template": "{% for d in demonstrations %}{{ d.id }}{% endfor %}{{ question }}",
                "selector": {"kind": "embedding", "embedder": "nobody"},
            },
            "build.selector.embedder",
            "nobody",
        ),
        (
            {"template": "{% for d in demonstrations %}{{ d.q }}{% endfor %}{{ question }}"}
            | {"demonstrations": 2, "pool": "file-x"},
            "build.pool",
            "no file 'file-x'",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parts_of_a_build_are_refused_by_their_path(
    site: Site, seeds: str, fields: dict[str, Any], location: str, words: str
) -> None:
    assert words in of_build(site, **build(seeds, **fields))[location]


@pytest.mark.slow
@pytest.mark.usefixtures("teacher")
def test_a_dataset_of_the_hub_that_cannot_be_had(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(name: str, **options: Any) -> None:  # A fake of the library's.
        raise RuntimeError(f"Dataset scripts are no longer supported, but found {name}.py")

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    found = of_build(site, **build("hub:owner/name"))
    assert "no longer supported" in found["build.seeds"]


@pytest.mark.usefixtures("teacher")
def test_a_build_without_seeds_is_looked_at_too(site: Site) -> None:
    magpie = {"kind": "if", "teacher": "t", "method": {"kind": "magpie"}}
    near = {"jaccard": 0.98, "permutations": 16}
    found = of_build(site, **magpie, near_duplicates=near)
    assert "0.98 is too near to 1 for 16 permutations" in found["build.near_duplicates.jaccard"]


@pytest.mark.usefixtures("teacher")
def test_completions_longer_than_the_context(site: Site, seeds: str) -> None:
    found = of_build(site, **build(seeds, sampling={"max_tokens": 512}))
    assert "teacher 't' holds 512 tokens" in found["build.sampling.max_tokens"]


JUDGE = {"kind": "judge", "rubric": "r", "threshold": 5}


def test_each_teacher_is_asked_for_what_its_own_context_holds(site: Site, seeds: str) -> None:
    add_teacher(site, probe=Probe(ok=True, context_tokens=4096))
    add_teacher(site, "small", probe=Probe(ok=True, context_tokens=600))
    long = build(seeds, sampling={"max_tokens": 2000})
    judged = {"checks": [JUDGE | {"teacher": "small", "max_tokens": 500}]}
    preflight.check(site, spec(kind="build", build=long | judged))
    judged = {"checks": [JUDGE | {"teacher": "small", "max_tokens": 600}]}
    found = of_build(site, **long, **judged)
    assert found.keys() == {"build.checks.0.max_tokens"}
    assert "teacher 'small' holds 600" in found["build.checks.0.max_tokens"]
    itself = of_build(site, **build(seeds, checks=[JUDGE | {"max_tokens": 4096}]))
    assert itself.keys() == {"build.checks.0.max_tokens"}
    several = build(seeds, sampling={"max_tokens": 700}) | {"teacher": "t"}
    found = of_build(site, **several, teachers=[{"name": "t"}, {"name": "small"}])
    assert "teacher 'small' holds 600" in found["build.sampling.max_tokens"]


@pytest.mark.usefixtures("teacher")
def test_what_a_method_asks_for_is_held_against_the_context_too(site: Site) -> None:
    rows = add_file(site, '{"instruction": "Name three."}\n', "tasks.jsonl")
    method = {"kind": "evol_instruct", "sampling": {"temperature": 1, "max_tokens": 512}}
    found = of_build(site, kind="if", teacher="t", seeds=rows, method=method)
    assert "512 tokens" in found["build.method.sampling.max_tokens"]


def test_teachers_beside_the_served_one_are_looked_up(
    site: Site, seeds: str, tmp_path: Path
) -> None:
    serve = {"kind": "serve", "model": str(add_model(tmp_path / "m")), "name": "t"}
    add_teacher(site, "small", probe=Probe(ok=True, context_tokens=100))
    judges = [JUDGE | {"teacher": "nobody"}, JUDGE | {"teacher": "small"}, JUDGE]
    given = build(seeds, checks=judges, teachers=[{"name": "t"}, {"name": "none"}])
    found = faults(site, kind="recipe", serve=serve, build=given)
    assert found.keys() == {
        "build.checks.0.teacher",
        "build.checks.1.max_tokens",
        "build.teachers.1.name",
    }


@pytest.mark.usefixtures("teacher")
def test_an_unknown_teacher(site: Site, seeds: str) -> None:
    found = of_build(site, **build(seeds) | {"teacher": "tt"})
    assert "Did you mean t" in found["build.teacher"]


@pytest.mark.usefixtures("teacher")
def test_every_fault_is_listed(site: Site) -> None:
    found = of_build(site, **build("file-x") | {"teacher": "nobody"})
    assert set(found) == {"build.seeds", "build.teacher"}


@pytest.mark.usefixtures("teacher")
def test_demonstrations_come_from_the_seeds_or_the_pool(site: Site) -> None:
    few = add_file(site, '{"input": "i", "output": "o"}\n')
    fields = {"kind": "icl", "teacher": "t", "seeds": few}
    assert "asks for 4 demonstrations" in of_build(site, **fields)["build.pool"]

    pool = add_file(site, LABELLED, "pool.jsonl")
    checked = preflight.check(site, spec(kind="build", build=fields | {"pool": "pool.jsonl"}))
    assert checked.model_dump()["build"]["pool"] == pool


async def test_a_teacher_that_did_not_answer_is_asked_again(
    site: Site, seeds: str, teacher_server: FakeTeacher
) -> None:
    add_teacher(site, probe=Probe(ok=False, error="was away"), url=teacher_server.url)
    wanted = spec(kind="build", build=build(seeds))
    await asyncio.to_thread(preflight.check, site, wanted)


def test_a_teacher_that_still_does_not_answer_is_refused(site: Site, seeds: str) -> None:
    add_teacher(site, probe=Probe(ok=False, error="was away"))
    assert "127.0.0.1:9" in of_build(site, **build(seeds))["build.teacher"]


def test_a_recipe_may_build_with_the_teacher_that_it_serves(
    site: Site, seeds: str, tmp_path: Path
) -> None:
    model = add_model(tmp_path / "teacher")
    serve = {"kind": "serve", "model": str(model), "name": "t"}
    preflight.check(site, spec(kind="recipe", serve=serve, build=build(seeds)))
    found = faults(
        site,
        kind="recipe",
        serve=serve | {"model": str(tmp_path)},
        build=build(seeds, signal={"top_k": 21}),
    )
    assert set(found) == {"serve.model", "build.signal"}


def test_a_served_name_must_be_free(site: Site) -> None:
    add_teacher(site)
    assert "registered" in faults(site, kind="serve", model="a/b", name="t")["name"]


def test_a_training_needs_rows_and_a_student(site: Site, tmp_path: Path) -> None:
    train = {"method": "sequence_level", "student": str(tmp_path), "dataset": "none"}
    found = faults(site, kind="train", train=train)
    assert "no config.json" in str(found["train.student"])
    assert "no dataset 'none'" in found["train.dataset"]
    assert "train.dataset" in faults(site, kind="train", train=train | {"dataset": None})


def test_an_empty_dataset_is_refused(site: Site, tmp_path: Path) -> None:
    source = add_model(tmp_path / "d")
    with site.sessions.writing.begin() as session:
        summary = {"accepted": 0}
        site.store.publish(session, "dataset", "d", source, summary=summary, inputs=[])
    train = {"method": "sequence_level", "student": "a/b", "dataset": "d"}
    assert "empty" in faults(site, kind="train", train=train)["train.dataset"]


def test_kl_needs_one_vocabulary(site: Site, tmp_path: Path) -> None:
    student = add_model(tmp_path / "s", {"a": 0})
    teacher = add_model(tmp_path / "t", {"b": 0})
    with site.sessions.writing.begin() as session:
        site.store.publish(session, "dataset", "d", student, summary={}, inputs=[])
    train = {"method": "forward_kl", "student": str(student), "dataset": "d"}
    found = faults(site, kind="train", train=train | {"teacher": str(teacher)})
    assert "different vocabularies" in found["train.teacher"]
    preflight.check(site, spec(kind="train", train=train | {"teacher": str(student)}))


def test_a_teacher_to_measure_against_is_a_directory_of_one_vocabulary(
    site: Site, tmp_path: Path
) -> None:
    """Refused before the training whose student would be compressed is paid for."""
    ours, theirs = (add_model(tmp_path / name, {name: 0}) for name in ("ours", "theirs"))
    with site.sessions.writing.begin() as session:
        site.store.publish(session, "dataset", "d", ours, summary={}, inputs=[])
    stages = {"stages": [{"kind": "depth"}]}
    alone = {**stages, "model": str(ours), "dataset": "d"}
    train = {"method": "sequence_level", "student": str(ours), "dataset": "d"}
    chain = {"kind": "recipe", "train": train}
    for teacher, told in (
        (str(theirs), "different vocabularies"),
        ("a/hub-name", "download it and name its directory"),
        (str(tmp_path / "nowhere"), "there is no such directory"),
    ):
        named = {"teacher": teacher}
        found = faults(site, kind="compress", compress=alone | named)
        assert told in found.pop("compress.teacher")
        assert not found
        assert told in faults(site, **chain, compress=stages | named)["compress.teacher"]
    named = {"teacher": str(ours)}
    preflight.check(site, spec(**chain, compress=stages | named))
    checked = preflight.check(site, spec(kind="compress", compress=alone | named))
    with site.sessions.reading() as session:
        made = compress_paths(checked.compress, Inputs(site.store, session))  # type: ignore[union-attr]
    assert made.teacher == str(ours)


def test_an_evaluation_file_must_be_there(site: Site, tmp_path: Path) -> None:
    compress = {"model": "a/b", "stages": [{"kind": "ptq"}], "dataset": "d"}
    for data in ("file-x", str(tmp_path / "x.jsonl")):
        found = faults(site, kind="compress", compress=compress | {"evaluate": {"data": data}})
        assert "compress.evaluate.data" in found


def test_an_evaluation_file_is_read_before_a_training_is_paid_for(
    site: Site, tmp_path: Path
) -> None:
    question = [{"role": "user", "content": "1 + 1\u2028= ?"}]
    row = {"id": "1", "skill": "cot", "prompt": question, "answer": "2"}
    train = {"method": "sequence_level", "student": "a/b", "dataset": "d"}
    here = tmp_path / "held-out.jsonl"
    here.write_text(json.dumps(row))
    for lacking in (add_file(site, json.dumps(row), here.name), str(here)):
        found = faults(site, kind="train", train=train, evaluate={"data": lacking})
        assert found["evaluate.data"].startswith("held-out.jsonl line 1 is not an evaluation row")
        assert "check: Field required" in found["evaluate.data"]
    here.write_text(json.dumps(row | {"check": "numeric"}, ensure_ascii=False), "utf-8")
    found = faults(site, kind="train", train=train, evaluate={"data": str(here)})
    assert set(found) == {"train.dataset"}


def test_a_report_is_of_a_job_with_models(site: Site) -> None:
    assert "no job of a recipe" in faults(site, kind="report", job="job-x")["job"]
    assert "name the job" in faults(site, kind="report")["job"]


def test_a_training_asks_a_registered_teacher_by_its_name(site: Site) -> None:
    """Never a URL: whoever may submit a training could make this machine ask anything."""
    add_teacher(site, probe=Probe(ok=True, context_tokens=512, max_logprobs=5))
    fields = {"method": "served_kl", "student": "hub/name", "top_k": 5, "teacher": "t"}

    def told(**changed: Any) -> dict[str, str]:
        train = {**fields, **changed}
        with pytest.raises(Problem) as raised:
            preflight.check(site, spec(kind="train", train=train))
        return {fault.location: fault.message for fault in raised.value.faults}

    assert set(told()) == {"train.dataset"}
    assert "gives 5 log-probs" in told(top_k=6)["train.top_k"]
    for other in ("nobody", "http://10.0.0.1/v1"):
        assert other in told(teacher=other)["train.teacher"]
    with site.sessions.writing.begin() as session:
        teachers.get(session, "t").api_key_sealed = "sealed"
    assert "stored sealed" in told()["train.teacher"]


def test_the_registration_says_where_a_training_asks(site: Site) -> None:
    add_teacher(site, probe=Probe(ok=True, context_tokens=512, max_logprobs=5))
    fields = {"method": "served_kl", "student": "hub/name", "teacher": "t", "in_flight": 9}
    mine = {"served_model": "other", "api_key_env": "HOME"}
    asked = TypeAdapter[TrainSpec](TrainSpec).validate_python({**fields, **mine})
    with site.sessions.writing.begin() as session:
        registered = teachers.get(session, "t")
        registered.max_in_flight = 3
        made = train_paths(asked, Inputs(site.store, session)).model_dump()
        assert made["teacher"] == registered.base_url
        assert made["served_model"] == registered.served_model
        assert (made["api_key_env"], made["in_flight"]) == (registered.api_key_env, 3)


@pytest.mark.usefixtures("teacher")
def test_an_evaluation_set_may_be_a_table(site: Site, seeds: str) -> None:
    table = add_file(site, "question,answer\nWhat is one and one?,2\n", "held-out.csv")
    preflight.check(site, spec(kind="build", build=build(seeds) | {"decontaminate": table}))


@pytest.mark.usefixtures("teacher")
def test_demonstrations_are_counted_where_the_tokenizer_is(site: Site) -> None:
    rows = add_file(site, LABELLED, "pool.jsonl")
    fields = {"kind": "icl", "teacher": "t", "seeds": rows, "demonstration_tokens": 50}
    assert "demonstration_tokens" in of_build(site, **fields)["build.teacher"]
