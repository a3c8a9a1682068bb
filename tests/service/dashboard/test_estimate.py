"""What the form says of a job's requests, tokens and time; what the teachers' page says of load."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from prompts.record import Call
from service.dashboard.estimate import estimate, from_preview
from service.disk import Written
from service.load import loads
from service.preview import Preview, PreviewRow
from service.site import Site
from service.store import Upload
from service.tables import Chunk, Grant, Job, State, now
from tests.service.dashboard import world
from tests.service.dashboard.asked import Seen, token
from tests.service.given import add_teacher, build, spec


def add_seeds(site: Site, rows: int) -> str:
    path = site.store.root / "incoming" / "file-counted"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f'{{"question": "{n}?", "answer": "{n}"}}\n' for n in range(rows)))
    with site.sessions.writing.begin() as session:
        upload = Upload(path, "seeds.jsonl", Written(path.stat().st_size, "0" * 64))
        return site.store.keep(session, upload, {"rows": rows, "purpose": "seeds"}).id


def add_build(site: Site, name: str, **spent: Any) -> None:
    """A build of teacher `t` that took 100 s of work and 20 s of pause."""
    job = world.add_job(
        site,
        "build",
        name,
        state=State.SUCCEEDED,
        started_at=now() - timedelta(seconds=120),
        finished_at=now(),
        paused_s=20.0,
    )
    with site.sessions.writing.begin() as session:
        session.get_one(Job, job).spec = {"kind": "build", "build": build("file-x")}
        session.add(Chunk(job_id=job, number=0, first_row=0, rows=50, offset=0, **spent))


SPENT = {"requests": 50, "prompt_tokens": 1000, "completion_tokens": 500, "teacher_seconds": 25.0}


def test_earlier_builds_of_the_teacher_tell_tokens_and_time(site: Site) -> None:
    seeds = add_seeds(site, 200)
    asked = spec(kind="build", build=build(seeds, samples=2, sampling={"temperature": 1}))
    assert "200 seeds: 400 requests, at most" in estimate(site, asked)
    assert "no earlier build" in estimate(site, asked)
    add_build(site, "earlier", **SPENT)
    told = estimate(site, asked)
    assert "about 8,000 prompt and 4,000 completion tokens" in told
    assert "about 13 min 20 s" in told
    few = asked.model_copy(update={"build": asked.build.model_copy(update={"limit": 25})})
    assert "25 seeds: 50 requests, about 1,000 prompt" in estimate(site, few)
    other = asked.model_copy(update={"build": asked.build.model_copy(update={"teacher": "u"})})
    assert "no earlier build" in estimate(site, other)


def test_a_build_with_hints_or_judges_takes_at_least_so_many(site: Site) -> None:
    seeds = add_seeds(site, 10)
    hinted = spec(kind="build", build=build(seeds, rationalise={}))
    assert "at least 10 requests" in estimate(site, hinted)


def test_previewed_rows_tell_of_all_seeds(site: Site) -> None:
    asked = spec(kind="build", build=build(add_seeds(site, 100)))
    calls = (Call(row="r", text="x", finish_reason="stop"),)
    rows = tuple(PreviewRow(id=str(n), prompt=(), calls=calls, end="accepted") for n in range(10))
    found = Preview(rows=rows, seconds=6.0, prompt_tokens=300, completion_tokens=70)
    told = from_preview(site, asked, found)
    assert "about 100 requests, 3,000 prompt and 700 completion tokens" in told
    assert "1 min 0 s with 10 rows at a time" in told
    silent = found.model_copy(update={"rows": ()})
    assert from_preview(site, asked, silent) == ""


def test_steps_of_a_training_and_its_pace(site: Site, tmp_path: Path) -> None:
    dataset = world.add_dataset(site, tmp_path, world.answered(80), "stories")
    optimization = {"batch_size": 4, "accumulation": 2, "epochs": 2.0}
    train = {"method": "sequence_level", "student": "s", "dataset": dataset}
    asked = spec(kind="train", train=train | {"optimization": optimization})
    # 36 of the 60 accepted rows are for training: 5 steps of 8 rows in an epoch.
    assert estimate(site, asked) == "At most 36 rows, 10 steps."
    ended = {"state": State.SUCCEEDED, "finished_at": now(), "progress": {"total": 100}}
    world.add_job(site, "train", "before", started_at=now() - timedelta(seconds=200), **ended)
    with site.sessions.writing.begin() as session:
        session.get_one(Job, "job-before").spec = asked.model_dump(mode="json")
    assert "10 steps, about 20 s at the pace of job-before" in estimate(site, asked)


def test_load_of_teachers_now_and_lately(site: Site) -> None:
    add_build(site, "earlier", **SPENT)
    running = world.add_job(site, "build", "now", state=State.RUNNING, started_at=now())
    with site.sessions.writing.begin() as session:
        session.get_one(Job, running).spec = {"kind": "build", "build": build("file-x")}
        grants = (("limited", "a", 3), ("limited", "b", 4))
        for teacher, owner, granted in grants:
            session.add(Grant(teacher=teacher, owner=owner, job_id="j", wanted=9, granted=granted))
    figures = {"in_flight": 12, "completion_tokens_per_s": 80.5}
    world.tell(site, running, ("progress", {"in_flight": 1}), ("progress", figures))
    with site.sessions.reading() as session:
        found = loads(session)
    assert (found["t"].jobs, found["t"].in_flight, found["t"].tokens_per_s) == (1, 12, 80.5)
    assert (found["t"].requests, found["t"].latency_s) == (50, 0.5)
    assert found["limited"].in_flight == 7


async def test_teachers_page_tells_limits_and_load(site: Site, browser: httpx.AsyncClient) -> None:
    form = {"csrf": await token(browser), "name": "t", "base_url": "http://127.0.0.1:9/v1"}
    form |= {"served_model": "m", "max_in_flight": "8"}
    assert (await browser.post("/teachers", data=form)).status_code == 303
    add_build(site, "earlier", **SPENT)
    seen = " ".join(Seen((await browser.get("/teachers")).text).text.split())
    assert "0 of 8" in seen
    assert "0.5 s" in seen
    assert "of 50" in seen
    refused = await browser.post("/teachers", data=form | {"max_in_flight": "0"})
    assert "max_in_flight" in refused.text


async def test_a_model_is_served_from_its_page(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    add_teacher(site)
    model = world.add_model(site, tmp_path / "m", "my student!", [], role="student")
    place = f"/models/{model}"
    csrf = {"csrf": await token(browser, place)}
    made = await browser.post(f"{place}/serve", data=csrf)
    assert made.status_code == 303
    seen = Seen((await browser.get(place)).text).text
    assert "served as my-student-v1" in seen
    assert "Serve it" not in seen
    job_id = made.headers["location"].rpartition("/")[2]
    assert site.broker.rung == [("serve", job_id)]  # type: ignore[attr-defined]


async def test_links_fill_the_form_of_a_new_job(
    site: Site, browser: httpx.AsyncClient, tmp_path: Path
) -> None:
    ids = world.fill(site, tmp_path)
    for query, path in {
        f"kind=train&dataset={ids['dataset']}": f"dataset: {ids['dataset']}",
        f"kind=compress&model={ids['model']}": f"model: {ids['model']}",
        # What it was trained on is what it is calibrated on, of its descendants too.
        f"kind=compress&model={ids['small']}": f"dataset: {ids['dataset']}",
        "kind=cot&teacher=quick": "teacher: quick",
    }.items():
        assert path in (await browser.get(f"/jobs/new?{query}")).text
