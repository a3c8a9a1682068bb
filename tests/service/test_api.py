import asyncio
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from service import db, events, jobs, teachers
from service.app import create_app
from service.probe import Probe
from service.settings import Settings
from service.site import Site
from service.tables import Job, State
from tests.service.fakes import FakeBroker, FakeTeacher
from tests.service.given import add_teacher, build, spec

SERVE = {"kind": "serve", "model": "org/model", "name": "t"}

PROBLEM = "application/problem+json"


def problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document that was answered."""
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert {"type", "title", "detail", "instance"} <= document.keys()
    return document


def faults(response: httpx.Response) -> dict[str, str]:
    return {fault["location"]: fault["message"] for fault in problem(response, 422)["errors"]}


def stream_of(text: str) -> list[dict[str, str]]:
    """The events of an SSE body."""
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        for block in text.strip().split("\n\n")
        if not block.startswith(":")
    ]


async def test_a_job_is_submitted_shown_listed_and_cancelled(api: httpx.AsyncClient) -> None:
    submitted = await api.post("/api/v1/jobs", json=SERVE)
    job = submitted.json()
    assert (submitted.status_code, job["state"]) == (202, "queued")
    assert submitted.headers["location"] == f"/api/v1/jobs/{job['id']}"

    assert (await api.get(f"/api/v1/jobs/{job['id']}")).json() == job
    listed = (await api.get("/api/v1/jobs", params={"kind": "serve", "state": "queued"})).json()
    assert [row["id"] for row in listed["jobs"]] == [job["id"]]
    cancelled = await api.post(f"/api/v1/jobs/{job['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"


async def test_pages_follow_each_other(api: httpx.AsyncClient) -> None:
    made = {(await api.post("/api/v1/jobs", json=SERVE)).json()["id"] for _ in range(3)}
    first = (await api.get("/api/v1/jobs", params={"limit": 2})).json()
    last = (await api.get("/api/v1/jobs", params={"limit": 2, "cursor": first["next"]})).json()
    assert {row["id"] for row in first["jobs"] + last["jobs"]} == made
    assert last["next"] is None


async def test_a_repeated_request_makes_one_job(api: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await api.post("/api/v1/jobs", json=SERVE, headers=headers)
    second = await api.post("/api/v1/jobs", json=SERVE, headers=headers)
    assert first.json()["id"] == second.json()["id"]
    other = await api.post("/api/v1/jobs", json=SERVE | {"name": "u"}, headers=headers)
    problem(other, 422)


async def test_an_unknown_kind_lists_the_known_ones(api: httpx.AsyncClient) -> None:
    assert "'recipe'" in faults(await api.post("/api/v1/jobs", json={"kind": "bild"}))["body"]


async def test_an_unknown_field_is_told_where_it_stands(api: httpx.AsyncClient) -> None:
    recipe = {
        "kind": "recipe",
        "build": build("file-x", temprature=1, sampling={"temperature": 9}),
        "train": {"method": "forward_kl", "student": "a/b", "teacher": "a/b", "kd": 1},
        "compress": {"stages": [{"kind": "ptq"}, {"kind": "wanda", "sparsity": 2}]},
    }
    assert set(faults(await api.post("/api/v1/jobs", json=recipe))) == {
        "build.temprature",
        "build.sampling.temperature",
        "train.kd",
        "compress.stages.1.sparsity",
    }


async def test_a_template_that_does_not_compile_is_refused(api: httpx.AsyncClient) -> None:
    wanted = {"kind": "build", "build": build("file-x", template="{{ question")}
    found = faults(await api.post("/api/v1/jobs", json=wanted))
    assert "syntax error in line 1" in found["build.template"]


async def test_what_cannot_work_is_told_all_at_once(api: httpx.AsyncClient) -> None:
    wanted = {"kind": "build", "build": build("file-x")}
    assert set(faults(await api.post("/api/v1/jobs", json=wanted))) == {
        "build.seeds",
        "build.teacher",
    }


async def test_malformed_json_and_unknown_routes_are_problems_too(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "application/json"}
    problem(await api.post("/api/v1/jobs", content=b'{"kind":', headers=headers), 422)
    assert problem(await api.get("/api/v1/nowhere"), 404)["code"] == "not-found"
    assert problem(await api.get("/api/v1/jobs/job-x"), 404)["code"] == "not-found"
    assert problem(await api.delete("/api/v1/jobs"), 405)["code"] == "method-not-allowed"


async def test_an_error_of_our_own_shows_no_stack(api: httpx.AsyncClient, site: Site) -> None:
    job = jobs.submit(site, spec(**SERVE))
    with site.sessions.writing.begin() as session:
        broken = update(Job).where(Job.id == job.id).values(progress=[])
        session.execute(broken)
    document = problem(await api.get(f"/api/v1/jobs/{job.id}"), 500)
    assert "Traceback" not in json.dumps(document)


async def test_events_are_replayed_until_the_end(api: httpx.AsyncClient, site: Site) -> None:
    job = jobs.submit(site, spec(**SERVE))
    with site.sessions.writing.begin() as session:
        events.emit(session, job.id, "phase", {"name": "load"})
    jobs.cancel(site, job.id)
    url = f"/api/v1/jobs/{job.id}/events"

    whole = stream_of((await api.get(url)).text)
    assert [event["event"] for event in whole] == ["state", "phase", "state"]
    assert json.loads(whole[1]["data"])["data"] == {"name": "load"}
    rest = await api.get(url, headers={"Last-Event-ID": whole[0]["id"]})
    assert stream_of(rest.text) == whole[1:]
    assert stream_of((await api.get(url, params={"after": whole[1]["id"]})).text) == whole[2:]
    assert (await api.get(url, params={"after": whole[2]["id"]})).text == ""


async def test_a_follower_gets_what_happens_while_it_listens(
    api: httpx.AsyncClient, site: Site
) -> None:
    job = jobs.submit(site, spec(**SERVE))
    following = asyncio.create_task(api.get(f"/api/v1/jobs/{job.id}/events"))
    await asyncio.sleep(0)
    # The writer gets its lock: a follower holds no transaction.
    await asyncio.to_thread(jobs.cancel, site, job.id)
    assert [event["event"] for event in stream_of((await following).text)] == ["state", "state"]


async def test_the_events_of_an_unknown_job_are_not_found(api: httpx.AsyncClient) -> None:
    problem(await api.get("/api/v1/jobs/job-x/events"), 404)


async def test_seeds_are_uploaded_raw_or_as_a_form(api: httpx.AsyncClient, site: Site) -> None:
    text = b'{"question": "1?"}\n{"question": "2?"}\n'
    raw = await api.post("/api/v1/files", params={"name": "s.jsonl"}, content=text)
    form = await api.post("/api/v1/files", params={"name": "s.jsonl"}, files={"file": ("x", text)})
    for made in (raw, form):
        assert made.status_code == 201
        fields = ["question", "id"]
        assert made.json()["summary"] == {"purpose": "seeds", "rows": 2, "fields": fields}
        content = await api.get(f"/api/v1/files/{made.json()['id']}/content")
        assert content.content == text
    assert raw.json()["sha256"] == form.json()["sha256"]


@pytest.mark.parametrize(
    ("content", "location"),
    [
        (b"", "file"),
        (b'{"a": 1}\n{"a":\n', "line 2"),
        (b'{"a": "\xff"}\n', "line 1"),
        (b'{"id": 1}\n\n{"id": 1}\n', "line 3"),
        (b"[1]\n", "line 1"),
    ],
)
async def test_unusable_seeds_are_refused_with_their_line(
    api: httpx.AsyncClient, site: Site, content: bytes, location: str
) -> None:
    refused = await api.post("/api/v1/files", params={"name": "s.jsonl"}, content=content)
    assert location in faults(refused)
    assert list((site.store.root / "incoming").iterdir()) == []
    assert (await api.get("/api/v1/files")).json()["artifacts"] == []


async def test_a_form_without_a_file_is_refused(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (
        b"nonsense",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--',
    ):
        answer = await api.post("/api/v1/files?name=s", content=content, headers=headers)
        problem(answer, 400)


async def test_evaluation_rows_need_skill_and_prompt(api: httpx.AsyncClient) -> None:
    params = {"name": "e.jsonl", "purpose": "evaluation"}
    bad = await api.post("/api/v1/files", params=params, content=b'{"prompt": "1+1"}\n')
    assert "'skill'" in faults(bad)["line 1"]


async def import_rows(api: httpx.AsyncClient, count: int = 40) -> dict[str, Any]:
    rows = "".join(
        json.dumps({"prompt": f"Say {n}", "completion": f"{n}"}) + "\n" for n in range(count)
    )
    params = {"name": "rows.jsonl", "purpose": "dataset"}
    file = (await api.post("/api/v1/files", params=params, content=rows.encode())).json()["id"]
    made = await api.post("/api/v1/datasets/import", json={"name": "mine", "file": file})
    assert made.status_code == 201
    dataset: dict[str, Any] = made.json()
    assert dataset["inputs"] == [file]
    return dataset


async def test_a_dataset_is_imported_shown_and_downloaded(
    api: httpx.AsyncClient, tmp_path: Path
) -> None:
    dataset = await import_rows(api)
    assert dataset["summary"]["accepted"] == 40

    route = "/api/v1/datasets/mine/rows"
    page = (await api.get(route, params={"limit": 3})).json()
    row = page["rows"][0]
    assert len(page["rows"]) == 3
    assert row["completion"][0]["content"] in row["prompt"][0]["content"]
    after = (await api.get(route, params={"limit": 3, "cursor": page["next"]})).json()
    assert row["id"] not in {other["id"] for other in after["rows"]}
    found = (await api.get(route, params={"q": row["prompt"][0]["content"]})).json()
    assert row["id"] in {other["id"] for other in found["rows"]}
    assert (await api.get(route, params={"q": "nowhere at all"})).json()["rows"] == []
    rejected = await api.get(f"/api/v1/datasets/{dataset['id']}/rejected")
    assert rejected.json() == {"rows": [], "next": None}

    archive = (await api.get("/api/v1/datasets/mine@1/download")).content
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        manifest = opened.read("manifest.json")
    one = await api.get("/api/v1/datasets/mine/files/manifest.json")
    assert one.content == manifest == (Path(dataset["location"]) / "manifest.json").read_bytes()


@pytest.mark.slow
async def test_a_directory_of_the_server_is_imported_as_it_is(api: httpx.AsyncClient) -> None:
    first = await import_rows(api)
    wanted = {"name": "again", "path": first["location"]}
    second = (await api.post("/api/v1/datasets/import", json=wanted)).json()
    assert second["sha256"] == first["sha256"]


async def test_what_cannot_be_imported_is_refused(api: httpx.AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"question": 1}\n')
    for path in ("x.jsonl", "missing.jsonl"):
        wanted = {"name": "m", "path": str(tmp_path / path)}
        assert "path" in faults(await api.post("/api/v1/datasets/import", json=wanted))
    wanted = {"name": "m"}
    assert "either `file`" in faults(await api.post("/api/v1/datasets/import", json=wanted))["body"]


async def test_no_file_outside_of_an_artifact_is_served(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    await import_rows(api, 1)
    for path in ("..%2F..%2Ffile", "%2Fetc%2Fpasswd", "..%2F..%2F..%2Fretort.db"):
        problem(await api.get(f"/api/v1/datasets/mine/files/{path}"), 404)


async def test_a_report_is_read_in_the_browser_and_runs_nothing(
    api: httpx.AsyncClient, site: Site, tmp_path: Path
) -> None:
    source = tmp_path / "report"
    source.mkdir()
    (source / "report.html").write_text("<h1>Report</h1>")
    with site.sessions.writing.begin() as session:
        report = site.store.publish(session, "report", "r", source, summary={}, inputs=[])

    page = await api.get(f"/api/v1/reports/{report.id}/report.html")

    assert page.headers["content-type"].startswith("text/html")
    assert "content-disposition" not in page.headers
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert (await api.get(f"/api/v1/reports/{report.id}")).json()["kind"] == "report"
    assert (await api.get("/api/v1/models")).json()["artifacts"] == []


async def test_teachers_are_registered_probed_and_forgotten(
    api: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    fields = {"name": "t", "base_url": teacher_server.url, "served_model": "m"}
    made = await api.post("/api/v1/teachers", json=fields)
    assert made.status_code == 201
    assert made.json()["probe"]["max_logprobs"] == 20

    teacher_server.completion_status = 500
    probed = (await api.post("/api/v1/teachers/t/probe")).json()["probe"]
    assert not probed["ok"]
    assert "500" in probed["error"]
    assert [row["name"] for row in (await api.get("/api/v1/teachers")).json()["teachers"]] == ["t"]
    assert (await api.delete("/api/v1/teachers/t")).status_code == 204
    problem(await api.get("/api/v1/teachers/t"), 404)


async def test_a_teacher_that_does_not_work_is_not_registered_unless_asked(
    api: httpx.AsyncClient, teacher_server: FakeTeacher
) -> None:
    wrong = {"name": "t", "base_url": teacher_server.url, "served_model": "other"}
    assert "It serves: m" in problem(await api.post("/api/v1/teachers", json=wrong), 422)["detail"]
    away = {"name": "t", "base_url": "http://127.0.0.1:9", "served_model": "m"}
    problem(await api.post("/api/v1/teachers", json=away), 502)
    assert (await api.get("/api/v1/teachers")).json()["teachers"] == []

    unchecked = await api.post("/api/v1/teachers", json=away, params={"check": False})
    assert unchecked.json()["probe"]["ok"] is False


async def test_a_teacher_that_a_job_serves_is_not_replaced(
    api: httpx.AsyncClient, site: Site, teacher_server: FakeTeacher
) -> None:
    job = jobs.submit(site, spec(**SERVE))
    add_teacher(site)
    with site.sessions.writing.begin() as session:
        teachers.get(session, "t").serve_job_id = job.id
    fields = {"name": "t", "base_url": teacher_server.url, "served_model": "m"}
    assert job.id in problem(await api.post("/api/v1/teachers", json=fields), 409)["detail"]


async def test_readiness_tells_what_works(
    api: httpx.AsyncClient, site: Site, broker: FakeBroker
) -> None:
    add_teacher(site)
    add_teacher(site, "away", Probe(ok=False, error="no answer"))
    healthy = (await api.get("/readyz")).json()
    assert healthy == {
        "status": "ok",
        "database": True,
        "artifacts": True,
        "broker": True,
        "workers": {"build": 1, "control": 1, "serve": 1, "train": 1},
        "teachers": {"away": False, "t": True},
    }
    broker.serving = {"build": 1}
    degraded = (await api.get("/readyz")).json()
    assert (degraded["status"], degraded["workers"]["train"]) == ("degraded", 0)
    broker.away = True
    assert (await api.get("/readyz")).json()["status"] == "degraded"


async def test_without_a_database_the_process_lives_but_is_not_ready(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    (settings.data_dir / "retort.db").write_bytes(b"no database at all" * 100)
    assert (await api.get("/healthz")).json() == {"status": "ok"}
    down = await api.get("/readyz")
    assert (down.status_code, down.json()["status"]) == (503, "down")


async def test_starting_makes_tables_and_reconciles(settings: Settings) -> None:
    app = create_app(settings.model_copy(update={"reconcile_s": 0.01}))
    site: Site = app.state.site
    db.upgrade(site.sessions.engine)
    job = jobs.submit(site, spec(**SERVE))
    with site.sessions.writing.begin() as session:
        session.execute(update(Job).where(Job.id == job.id).values(cancel_requested=True))
    async with app.router.lifespan_context(app):
        while (await asyncio.to_thread(_state, site, job.id)) != State.CANCELLED:
            await asyncio.sleep(0.01)


def _state(site: Site, job_id: str) -> str:
    with site.sessions.reading() as session:
        return jobs.get(session, job_id).state
