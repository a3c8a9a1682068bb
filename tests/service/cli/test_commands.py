import json
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import jobs, runtime
from service.cli.client import Api
from service.cli.failure import UNREACHABLE, Failure
from service.site import Site
from service.tables import Job, State
from tests.service.cli.conftest import Cli
from tests.service.given import add_model, add_teacher


def recipe(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return str(path)


def seeds(folder: Path) -> Path:
    path = folder / "seeds.jsonl"
    path.write_text('{"id": "1", "question": "1 + 1?", "answer": "2"}\n')
    return path


def stored(site: Site, job_id: str) -> Job:
    with site.sessions.reading() as session:
        return jobs.get(session, job_id)


BUILD = "kind: build\nbuild: {kind: cot, teacher: t, seeds: seeds.jsonl}\n"


def test_run_uploads_what_the_recipe_names_and_submits(
    site: Site, api: str, cli: Cli, tmp_path: Path
) -> None:
    add_teacher(site)
    seeds(tmp_path)

    said = cli("run", recipe(tmp_path, BUILD), "--url", api, "--json")

    assert said.code == 0, said
    job = stored(site, json.loads(said.out)["id"])
    assert job.spec["build"]["seeds"].startswith("file-")


def test_run_uploads_the_same_file_once(site: Site, api: str, cli: Cli, tmp_path: Path) -> None:
    add_teacher(site)
    seeds(tmp_path)
    path = recipe(tmp_path, BUILD)

    first, again = (json.loads(cli("run", path, "--url", api, "--json").out) for _ in range(2))

    assert first["id"] != again["id"]
    assert first["spec"]["build"]["seeds"] == again["spec"]["build"]["seeds"]


def test_run_with_a_key_submits_once(site: Site, api: str, cli: Cli, tmp_path: Path) -> None:
    add_teacher(site)
    seeds(tmp_path)
    words = ("run", recipe(tmp_path, BUILD), "--url", api, "--json", "--key", "k")
    assert json.loads(cli(*words).out)["id"] == json.loads(cli(*words).out)["id"]


def test_set_changes_values_and_paths_become_absolute(
    site: Site, api: str, cli: Cli, tmp_path: Path
) -> None:
    model = add_model(tmp_path / "models" / "small")
    with site.sessions.writing.begin() as session:
        site.store.publish(session, "dataset", "d", model, summary={}, inputs=[])
    text = "compress: {model: ./models/small, dataset: d, stages: [{kind: wanda}, {kind: svd}]}\n"
    changes = ("--set", "compress.stages.0.sparsity=0.25", "--set", "compress.serve_check=false")

    said = cli("run", recipe(tmp_path, text), "--url", api, "--json", *changes)

    assert said.code == 0, said
    job = json.loads(said.out)
    assert job["kind"] == "recipe"
    assert job["spec"]["compress"]["model"] == str(tmp_path / "models" / "small")
    assert job["spec"]["compress"]["stages"][0]["sparsity"] == 0.25
    assert job["spec"]["compress"]["serve_check"] is False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kind: build\nbuild: {kind: cot, teacher: t, seeds: s, bogus: 1}\n", "build.bogus"),
        ("kind: build\nbuild: {kind: magic, teacher: t, seeds: s}\n", "'cot'"),
        ("kind: bild\n", "'build'"),
        ("build: {kind: cot, teacher: t}\n", "build.seeds"),
        ("build: [1\n", "isn't YAML"),
        ("- 1\n", "isn't a mapping"),
        (BUILD, "seeds.jsonl"),
        ("compress: {model: ./none, stages: [{kind: wanda}]}\n", "./none"),
    ],
)
def test_a_bad_recipe_ends_before_anything_is_sent(
    cli: Cli, tmp_path: Path, text: str, told: str
) -> None:
    # No API answers at that address: had anything been sent, the code would be 3.
    said = cli("run", recipe(tmp_path, text), "--url", "http://127.0.0.1:9")
    assert said.code == 2
    assert told in said.err


def test_errors_of_the_api_are_shown_with_their_places(api: str, cli: Cli, tmp_path: Path) -> None:
    seeds(tmp_path)
    path = recipe(tmp_path, BUILD)

    said = cli("run", path, "--url", api)
    as_json = cli("run", path, "--url", api, "--json")

    assert said.code == as_json.code == 2
    assert "teacher" in said.err
    assert json.loads(as_json.out)["error"]["status"] in (404, 422)


def test_malformed_seeds_are_refused_with_the_line(
    site: Site, api: str, cli: Cli, tmp_path: Path
) -> None:
    add_teacher(site)
    seeds(tmp_path).write_text('{"id": "1", "question": "q"}\nno json\n')
    said = cli("run", recipe(tmp_path, BUILD), "--url", api)
    assert said.code == 2
    assert "line 2" in said.err


def test_set_without_a_value_is_bad_input(cli: Cli, tmp_path: Path) -> None:
    said = cli("run", recipe(tmp_path, BUILD), "--set", "train.name")
    assert said.code == 2
    assert "key=value" in said.err


def test_an_api_that_is_away(cli: Cli) -> None:
    said = cli("jobs", "--url", "http://127.0.0.1:9")
    assert said.code == UNREACHABLE
    assert "retort up" in said.err
    as_json = cli("jobs", "--url", "http://127.0.0.1:9", "--json")
    assert "can't be reached" in json.loads(as_json.out)["error"]["title"]


def test_the_api_is_found_by_what_the_stack_says_of_itself(site: Site, api: str, cli: Cli) -> None:
    described = runtime.Runtime(
        pid=1, url=api, data_dir=str(site.settings.data_dir), broker="", started_at="", ready=True
    )
    runtime.write(site.settings.data_dir, described)
    assert json.loads(cli("jobs", "--json").out) == {"jobs": [], "next": None}


@pytest.mark.parametrize(
    "words",
    [("jobs",), ("datasets", "list"), ("models", "list"), ("teachers", "list")],
)
def test_lists_are_one_json_document(api: str, cli: Cli, words: tuple[str, ...]) -> None:
    said = cli(*words, "--url", api, "--json")
    assert said.code == 0
    json.loads(said.out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("watch", "job-none"),
        ("cancel", "job-none"),
        ("datasets", "show", "none"),
        ("models", "show", "none"),
        ("report", "none"),
        ("teachers", "probe", "none"),
        ("teachers", "remove", "none"),
    ],
)
def test_what_is_not_there_is_bad_input(api: str, cli: Cli, words: tuple[str, ...]) -> None:
    said = cli(*words, "--url", api)
    assert said.code == 2
    assert "none" in said.err


def test_a_teacher_that_does_not_answer_is_refused(api: str, cli: Cli) -> None:
    add = ("teachers", "add", "x", "http://127.0.0.1:9/v1", "--served-model", "m", "--url", api)
    assert cli(*add).code == 2
    assert cli(*add, "--no-check").code == 0
    assert cli("teachers", "probe", "x", "--url", api).code == 1
    assert cli("teachers", "remove", "x", "--url", api).code == 0


@pytest.mark.slow
def test_watch_tells_how_a_job_ended(site: Site, api: str, cli: Cli) -> None:
    add_job(site, "job-1", State.SUCCEEDED)
    add_job(site, "job-2", State.FAILED, reason="gate", detail="svd lost too much")

    assert cli("watch", "job-1", "--url", api).code == 0
    said = cli("watch", "job-2", "--url", api)
    as_json = cli("watch", "job-2", "--url", api, "--json")

    assert said.code == as_json.code == 1
    assert "svd lost too much" in said.out
    lines = [json.loads(line) for line in as_json.out.splitlines()]
    assert lines[0]["type"] == "state"
    assert lines[-1]["job"]["reason"] == "gate"


def test_cancel_ends_a_queued_job(site: Site, api: str, cli: Cli) -> None:
    add_job(site, "job-1", State.QUEUED)
    assert cli("cancel", "job-1", "--url", api).code == 0
    assert stored(site, "job-1").state == State.CANCELLED


def test_import_show_and_download_a_dataset(api: str, cli: Cli, tmp_path: Path) -> None:
    source = tmp_path / "mine.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"say {number}"}],
            "completion": [{"role": "assistant", "content": str(number)}],
        }
        for number in range(20)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))

    said = cli("datasets", "import", str(source), "--url", api, "--json")
    assert said.code == 0, said
    shown = json.loads(cli("datasets", "show", "mine", "--url", api, "--json").out)
    target = tmp_path / "out"
    saved = cli("datasets", "download", "mine", "--out", str(target), "--url", api)

    assert shown["summary"]["accepted"] == 20
    assert shown["rows"][0]["prompt"][0]["content"].startswith("say")
    assert saved.code == 0
    assert (target / "manifest.json").exists()
    taken = cli("datasets", "download", "mine", "--out", str(target), "--url", api)
    assert taken.code == 2


def test_a_report_is_found_by_its_job(site: Site, api: str, cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "report.md").write_text("# The findings\n")
    with site.sessions.writing.begin() as session:
        found = site.store.publish(session, "report", "r", folder, summary={}, inputs=[])
    add_job(site, "job-1", State.SUCCEEDED, result={"report": found.id})
    add_job(site, "job-2", State.QUEUED)

    assert "The findings" in cli("report", "job-1", "--url", api).out
    assert json.loads(cli("report", found.id, "--url", api, "--json").out)["id"] == found.id
    assert cli("report", "job-2", "--url", api).code == 2


def add_job(site: Site, job_id: str, state: State, **fields: Any) -> None:
    from service import events

    data = {"state": state} | {"reason": None, "detail": None, "result": {}} | fields
    with site.sessions.writing.begin() as session:
        spec = {"kind": "report", "job": None}
        session.add(Job(id=job_id, kind="report", name="j", spec=spec, state=state, **fields))
        session.flush()
        events.emit(session, job_id, events.STATE, data)


def test_event_streams_are_taken_up_behind_the_last_event() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        text = 'id: 7\nevent: step\ndata: {"job_id": "j",\ndata:  "data": {}}\n\n: still there\n\n'
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    found = list(Api("http://api", httpx.MockTransport(answer)).events("j", after=5))

    assert [(event.id, event.type) for event in found] == [(7, "step")]
    assert found[0].view == {"job_id": "j", "data": {}}
    assert asked[0].headers["Last-Event-ID"] == "5"


def test_an_answer_that_is_no_problem_document_is_another_server() -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(404, text="<html>"))
    with pytest.raises(Failure) as failure:
        Api("http://api", transport).get("/jobs")
    assert failure.value.code == UNREACHABLE


def test_a_download_is_a_zip(site: Site, api: str, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "report.md").write_text("x")
    with site.sessions.writing.begin() as session:
        found = site.store.publish(session, "report", "r", folder, summary={}, inputs=[])
    Api(api).save(f"/reports/{found.id}/download", tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert "report.md" in archive.namelist()
