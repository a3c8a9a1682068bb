from typing import Any

import pytest
from sqlalchemy import update

from service import chain, jobs
from service.site import Site
from service.spec import RecipeJob
from service.tables import Job, State
from tests.service.fakes import FakeBroker
from tests.service.given import add_model, add_teacher, build, spec, state_of

STUDENT = {"method": "sequence_level", "student": "org/student"}


@pytest.fixture
def recipe(site: Site, seeds: str) -> str:
    """Id of a recipe of all parts but serve."""
    add_teacher(site)
    return submit(site, build=build(seeds), train=STUDENT, compress={"stages": [{"kind": "ptq"}]})


def submit(site: Site, **parts: Any) -> str:
    job_id = jobs.submit(site, spec(kind="recipe", **parts)).id
    chain.advance(site, job_id)
    return job_id


def parts(site: Site, recipe: str) -> dict[str, Job]:
    with site.sessions.reading() as session:
        return {child.part or "": child for child in jobs.children(session, recipe)}


def end(
    site: Site,
    recipe: str,
    part: str,
    state: State = State.SUCCEEDED,
    reason: str | None = None,
    **result: Any,
) -> None:
    """End a part as its worker does."""
    job = parts(site, recipe)[part]
    with site.sessions.writing.begin() as session:
        assert jobs.finish(session, job.id, job.epoch, state, reason=reason, result=result)
    chain.advance(site, recipe)


def set_running(site: Site, job_id: str, **values: Any) -> None:
    with site.sessions.writing.begin() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state="running", **values))


@pytest.fixture
def published(site: Site, tmp_path: Any) -> tuple[str, str]:
    """Ids of a dataset and a model in the store."""
    source = add_model(tmp_path / "published")
    with site.sessions.writing.begin() as session:
        store = site.store
        return (
            store.publish(session, "dataset", "d", source, summary={}, inputs=[]).id,
            store.publish(session, "model", "m", source, summary={}, inputs=[]).id,
        )


def test_each_part_gets_what_the_one_before_published(
    site: Site, recipe: str, published: tuple[str, str]
) -> None:
    dataset, model = published
    assert list(parts(site, recipe)) == ["build"]
    assert state_of(site, recipe) == ("running", None)

    end(site, recipe, "build", dataset=dataset, accepted=3)
    assert parts(site, recipe)["train"].spec["train"]["dataset"] == dataset
    end(site, recipe, "train", model=model)
    compress = parts(site, recipe)["compress"].spec["compress"]
    assert (compress["model"], compress["dataset"]) == (model, dataset)
    end(site, recipe, "compress", models=["model-q"])
    assert parts(site, recipe)["report"].spec["job"] == recipe
    end(site, recipe, "report", report="report-1")

    assert state_of(site, recipe) == ("succeeded", None)
    with site.sessions.reading() as session:
        assert jobs.get(session, recipe).result == {
            "dataset": dataset,
            "accepted": 3,
            "model": model,
            "models": ["model-q"],
            "report": "report-1",
        }


def test_advancing_often_submits_once(site: Site, recipe: str) -> None:
    for _ in range(3):
        chain.advance(site, recipe)
    with site.sessions.reading() as session:
        assert len(jobs.children(session, recipe)) == 1


def test_an_empty_build_refuses_the_training(
    site: Site, recipe: str, published: tuple[str, str]
) -> None:
    end(site, recipe, "build", reason="empty", dataset=published[0], accepted=0)
    assert state_of(site, recipe) == ("failed", "empty")
    assert list(parts(site, recipe)) == ["build"]


def test_an_empty_build_alone_is_no_failure(site: Site, seeds: str) -> None:
    add_teacher(site)
    recipe = submit(site, build=build(seeds), report=False)
    end(site, recipe, "build", reason="empty", accepted=0)
    assert state_of(site, recipe) == ("succeeded", "empty")


@pytest.mark.parametrize("reason", ["crashed", "teacher_unreachable"])
def test_a_failed_part_fails_the_recipe(site: Site, recipe: str, reason: str) -> None:
    end(site, recipe, "build", State.FAILED, reason)
    assert state_of(site, recipe) == ("failed", reason)


def test_a_cancelled_part_cancels_the_recipe(site: Site, recipe: str) -> None:
    jobs.cancel(site, parts(site, recipe)["build"].id)
    chain.advance(site, recipe)
    assert state_of(site, recipe) == ("cancelled", "cancelled")


def test_a_cancelled_recipe_waits_for_its_running_part(site: Site, recipe: str) -> None:
    set_running(site, parts(site, recipe)["build"].id)
    jobs.cancel(site, recipe)
    chain.advance(site, recipe)
    assert state_of(site, recipe) == ("running", None)

    end(site, recipe, "build", State.CANCELLED, "cancelled")
    assert state_of(site, recipe) == ("cancelled", "cancelled")
    assert list(parts(site, recipe)) == ["build"]


def test_a_closed_gate_is_reported_and_then_fails_the_recipe(
    site: Site, recipe: str, published: tuple[str, str]
) -> None:
    end(site, recipe, "build", dataset=published[0], accepted=3)
    end(site, recipe, "train", model=published[1])
    end(site, recipe, "compress", State.FAILED, "gate")
    assert state_of(site, recipe) == ("running", None)
    end(site, recipe, "report", report="report-1")
    assert state_of(site, recipe) == ("failed", "gate")


def test_a_part_whose_input_is_gone_fails_the_recipe(site: Site, recipe: str) -> None:
    end(site, recipe, "build", dataset="ds-gone", accepted=3)
    assert state_of(site, recipe) == ("failed", "bad_input")


def test_the_build_waits_until_its_teacher_is_ready_and_gives_it_back(
    site: Site, seeds: str, published: tuple[str, str], broker: FakeBroker
) -> None:
    serve = {"kind": "serve", "model": "org/teacher", "name": "t"}
    recipe = submit(site, serve=serve, build=build(seeds), train=STUDENT)
    teacher = parts(site, recipe)["serve"].id
    set_running(site, teacher)
    chain.advance(site, recipe)
    assert list(parts(site, recipe)) == ["serve"]

    add_teacher(site)
    with site.sessions.writing.begin() as session:
        session.get_one(Job, teacher).progress = {"ready": True}
        session.get_one(Job, teacher).state = State.QUEUED  # put back by a worker that stops
    chain.advance(site, recipe)
    assert list(parts(site, recipe)) == ["serve"]
    set_running(site, teacher)
    chain.advance(site, recipe)
    assert list(parts(site, recipe)) == ["serve", "build"]

    end(site, recipe, "build", dataset=published[0], accepted=3)
    assert parts(site, recipe)["serve"].cancel_requested
    assert "train" not in parts(site, recipe)

    end(site, recipe, "serve", State.CANCELLED, "cancelled")
    assert "train" in parts(site, recipe)


def test_a_teacher_that_dies_stops_the_build(site: Site, seeds: str) -> None:
    serve = {"kind": "serve", "model": "org/teacher", "name": "t"}
    recipe = submit(site, serve=serve, build=build(seeds))
    set_running(site, parts(site, recipe)["serve"].id, progress={"ready": True})
    add_teacher(site)
    chain.advance(site, recipe)

    end(site, recipe, "serve", State.FAILED, "crashed")

    assert state_of(site, parts(site, recipe)["build"].id) == ("cancelled", "cancelled")
    assert state_of(site, recipe) == ("failed", "crashed")


def test_a_finished_recipe_is_left_alone() -> None:
    parsed = spec(kind="recipe", build=build("file-1"))
    assert isinstance(parsed, RecipeJob)
    parent = Job(id="job-1", state=State.FAILED, cancel_requested=True)
    assert chain.next_step(parsed, parent, {}) == chain.Wait()
