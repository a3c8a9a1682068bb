"""The real `openai` package, unmodified, against a real server."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from service import events, keys
from service.keys import NewKey
from service.site import Site
from service.tables import State
from tests.service.cli.conftest import api
from tests.workers.conftest import StubTeacher, get_job, register, stub, wait_for
from workers import batch, child

__all__ = ["api", "stub"]

pytestmark = pytest.mark.servers

STUDENT = str(Path(__file__).resolve().parents[3] / "examples/demo/models/student-base")


@pytest.fixture
def client(api: str, site: Site, stub: StubTeacher) -> Iterator[OpenAI]:
    """OpenAI's client with another base_url, and a teacher to ask."""
    register(site, stub.url)
    with OpenAI(base_url=f"{api}/v1", api_key="any", max_retries=0) as opened:
        yield opened


def requests(count: int, **body: Any) -> bytes:
    rows = [
        {
            "custom_id": f"r{n}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "stub", "messages": [{"role": "user", "content": f"{n} plus 3?"}]}
            | body,
        }
        for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def chats(count: int) -> bytes:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "You add."},
                {"role": "user", "content": f"{n} plus 3?"},
                {"role": "assistant", "content": f"{n + 3}"},
            ]
        }
        for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def work(site: Site, batch_id: str) -> None:
    """What a worker does when the doorbell rings."""
    batch.run(site, batch_id.replace("batch_", "job-"))


def test_files(client: OpenAI) -> None:
    made = [
        client.files.create(file=(f"{n}.jsonl", requests(2)), purpose="batch") for n in range(3)
    ]
    assert (made[0].filename, made[0].purpose, made[0].status) == ("0.jsonl", "batch", "processed")
    assert client.files.retrieve(made[0].id) == made[0]
    assert client.files.content(made[0].id).content == requests(2)
    newest_first = [file.id for file in client.files.list(purpose="batch", limit=2)]
    assert newest_first == [file.id for file in reversed(made)]  # over two pages
    assert client.files.delete(made[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made[0].id)
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=("x", b"{}"), purpose="vision")
    assert refused.value.param == "purpose"


def test_a_batch_from_file_to_output(client: OpenAI, site: Site) -> None:
    file = client.files.create(file=("requests.jsonl", requests(20)), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"who": "me"},
    )
    assert (made.status, made.metadata) == ("validating", {"who": "me"})
    with pytest.raises(openai.ConflictError):
        client.files.delete(file.id)
    work(site, made.id)
    ended = client.batches.retrieve(made.id)
    assert (ended.status, ended.errors, ended.error_file_id) == ("completed", None, None)
    assert ended.request_counts is not None
    assert ended.request_counts.model_dump() == {"total": 20, "completed": 20, "failed": 0}
    assert None not in (ended.in_progress_at, ended.finalizing_at, ended.completed_at)
    lines = client.files.content(str(ended.output_file_id)).text.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(20)]
    assert "makes 5" in rows[2]["response"]["body"]["choices"][0]["message"]["content"]
    assert rows[2]["response"]["body"]["model"] == "stub"
    assert [each.id for each in client.batches.list(limit=1)] == [made.id]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)


def test_a_batch_that_cannot_work_says_where(client: OpenAI, site: Site) -> None:
    file = client.files.create(file=("r.jsonl", requests(1, model="nobody")), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    work(site, made.id)
    failed = client.batches.retrieve(made.id)
    assert failed.status == "failed"
    assert failed.failed_at
    assert failed.errors is not None
    assert failed.errors.data is not None
    error = failed.errors.data[0]
    assert (error.code, error.line, error.param) == ("model_not_found", 1, "body.model")


def test_a_running_batch_is_cancelled_with_what_it_has(
    client: OpenAI, site: Site, stub: StubTeacher
) -> None:
    stub.faults(delay_s=0.3)
    file = client.files.create(file=("r.jsonl", requests(2000)), purpose="batch")
    made = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    working = threading.Thread(target=work, args=(site, made.id))
    working.start()
    while stub.stats()["answered"] < 20:
        pass
    assert client.batches.retrieve(made.id).status in ("validating", "in_progress")
    assert client.batches.cancel(made.id).status == "cancelling"
    working.join(60)
    ended = client.batches.retrieve(made.id)
    assert ended.status == "cancelled"
    answered = client.files.content(str(ended.output_file_id)).text.splitlines()
    assert 20 <= len(answered) < 2000


def test_chat_completions_are_passed_on(client: OpenAI, stub: StubTeacher) -> None:
    messages: Any = [{"role": "user", "content": "What is 4 plus 1?"}]
    said = client.chat.completions.create(model="stub", messages=messages)
    assert said.choices[0].message.content == "4 plus 1 makes 5. The answer is 5."
    chunks = client.chat.completions.create(model="stub", messages=messages, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text.strip() == said.choices[0].message.content
    stub.faults(status=400, times=1, body="no such parameter")
    with pytest.raises(openai.BadRequestError, match="no such parameter"):
        client.chat.completions.create(model="stub", messages=messages)
    stub.faults(status=429, times=1)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="stub", messages=messages, stream=True)
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=messages)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as empty:
        client.chat.completions.create(model="stub", messages=[])
    assert empty.value.param == "messages"
    stub.process.kill()
    stub.process.wait()
    with pytest.raises(openai.InternalServerError, match="stub does not answer"):
        client.chat.completions.create(model="stub", messages=messages)


def test_without_a_key_that_holds_nothing_is_answered(client: OpenAI, site: Site, api: str) -> None:
    _, key = keys.create(site, NewKey(name="k", scopes=("read", "submit")))
    with pytest.raises(openai.AuthenticationError, match="unknown or was revoked"):
        client.models.list()
    with OpenAI(base_url=f"{api}/v1", api_key=key, max_retries=0) as known:
        assert [model.id for model in known.models.list()] == ["stub"]
        with pytest.raises(openai.PermissionDeniedError, match="'train'"):
            known.fine_tuning.jobs.create(model=STUDENT, training_file="file-1")


def test_models(client: OpenAI) -> None:
    assert [(each.id, each.owned_by) for each in client.models.list()] == [("stub", "teacher")]
    assert client.models.retrieve("stub").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


def test_a_fine_tuning_job_is_queued_paused_and_cancelled(client: OpenAI, site: Site) -> None:
    file = client.files.create(file=("chats.jsonl", chats(30)), purpose="fine-tune")
    made = client.fine_tuning.jobs.create(
        model=STUDENT,
        training_file=file.id,
        suffix="adder",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {
                "hyperparameters": {
                    "n_epochs": 2,
                    "batch_size": "auto",
                    "learning_rate_multiplier": 0.5,
                }
            },
        },
    )
    assert (made.status, made.training_file, made.seed) == ("queued", file.id, 7)
    assert made.hyperparameters.n_epochs == 2
    assert made.hyperparameters.learning_rate_multiplier == 0.5
    spec = get_job(site, made.id.replace("ftjob-", "job-")).spec["train"]
    assert (spec["method"], spec["name"]) == ("sequence_level", "adder")
    assert spec["optimization"]["epochs"] == 2
    assert [job.id for job in client.fine_tuning.jobs.list()] == [made.id]
    assert client.fine_tuning.jobs.pause(made.id).status == "paused"
    assert client.fine_tuning.jobs.resume(made.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(made.id).status == "cancelled"
    told = client.fine_tuning.jobs.list_events(made.id, limit=1)
    assert [event.object for event in told] == ["fine_tuning.job.event"] * 4
    with pytest.raises(openai.ConflictError):
        client.fine_tuning.jobs.cancel(made.id)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"hyperparameters": {"n_layers": 2}}, "hyperparameters.n_layers"),
        ({"hyperparameters": {"n_epochs": -1}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"method": {"type": "magic"}}, "method.type"),
        ({"method": {"type": "supervised", "dpo": {}}}, "method.dpo"),
        ({"method": {"type": "supervised", "supervised": {"beta": 1}}}, "method.supervised.beta"),
        ({"method": {"type": "supervised", "supervised": "x"}}, "method.supervised"),
        (
            {"method": {"type": "supervised", "supervised": {"hyperparameters": "auto"}}},
            "method.supervised.hyperparameters",
        ),
        (
            {"method": {"type": "supervised", "supervised": {"student": "other"}}},
            "method.supervised.student",
        ),
        ({"hyperparameters": {"learning_rate_multiplier": True}}, "hyperparameters.learning_rate"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 10**400}},
            "hyperparameters.learning_rate",
        ),
        ({"validation_file": "file-1"}, "validation_file"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"metadata": {"a": "b"}}, "metadata"),
    ],
)
def test_what_a_fine_tuning_job_cannot_have_is_refused_by_name(
    client: OpenAI, fields: dict[str, Any], param: str
) -> None:
    file = client.files.create(file=("chats.jsonl", chats(3)), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.jobs.create(model=STUDENT, training_file=file.id, **fields)
    assert str(refused.value.param).startswith(param)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "line 1: no message"),
        (b'{"prompt": "a"}\n', "messages"),
        (b"nonsense\n", "line 1"),
        (
            b'{"messages": [{"role": "x", "content": "a"}, {"role": "assistant", "content": "b"}]}',
            "role",
        ),
        (b'{"messages": [{"role": "user"}], "tools": [1]}\n', "tools"),
    ],
)
def test_an_unusable_training_file_is_refused(client: OpenAI, line: bytes, told: str) -> None:
    file = client.files.create(file=("chats.jsonl", line), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        client.fine_tuning.jobs.create(model=STUDENT, training_file=file.id)
    assert refused.value.param == "training_file"


@pytest.mark.slow
def test_a_fine_tuning_job_from_file_to_checkpoint(client: OpenAI, site: Site) -> None:
    file = client.files.create(file=("chats.jsonl", chats(60)), purpose="fine-tune")
    method: Any = {
        "type": "supervised",
        "supervised": {"hyperparameters": {"max_steps": 4, "checkpoint_steps": 2, "threads": 1}},
    }
    made = client.fine_tuning.jobs.create(model=STUDENT, training_file=file.id, method=method)
    child.run(site, made.id.replace("ftjob-", "job-"))
    ended = client.fine_tuning.jobs.retrieve(made.id)
    assert (ended.status, ended.error) == (State.SUCCEEDED, None)
    assert (made.trained_tokens, (ended.trained_tokens or 0) > 0) == (None, True)
    assert client.models.retrieve(str(ended.fine_tuned_model)).owned_by == "retort"
    told = list(client.fine_tuning.jobs.list_events(made.id, limit=5))
    metrics = [event for event in told if event.type == "metrics"]
    assert metrics
    assert "train_loss" in dict(metrics[-1].data)  # type: ignore[call-overload]
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(made.id))
    assert checkpoints[0].fine_tuned_model_checkpoint == ended.fine_tuned_model
    assert checkpoints[0].metrics.train_loss is not None
    assert {each.step_number for each in checkpoints} == {2, 4}


@pytest.mark.slow
def test_a_running_fine_tuning_job_pauses_and_goes_on(client: OpenAI, site: Site) -> None:
    file = client.files.create(file=("chats.jsonl", chats(60)), purpose="fine-tune")
    hyperparameters = {"max_steps": 120, "batch_size": 4, "checkpoint_steps": 120, "threads": 1}
    method: Any = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    made = client.fine_tuning.jobs.create(model=STUDENT, training_file=file.id, method=method)
    job_id = made.id.replace("ftjob-", "job-")
    training = threading.Thread(target=child.run, args=(site, job_id))
    training.start()
    wait_for(lambda: steps(site, job_id), 120)
    assert client.fine_tuning.jobs.pause(made.id).status == "running"
    training.join(120)
    assert client.fine_tuning.jobs.retrieve(made.id).status == "paused"
    paused_at = max(steps(site, job_id))
    assert client.fine_tuning.jobs.resume(made.id).status == "queued"
    child.run(site, job_id)
    assert client.fine_tuning.jobs.retrieve(made.id).status == State.SUCCEEDED
    told = steps(site, job_id)
    assert paused_at < 120 == max(told)
    assert len(told) == len(set(told))  # No step twice: it went on from where it was.


def steps(site: Site, job_id: str) -> list[int]:
    """The steps that a training told of, in order."""
    with site.sessions.reading() as session:
        return [e.data["step"] for e in events.since(session, job_id, 0) if e.type == "step"]
