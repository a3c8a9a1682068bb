"""An installation with something on every page. Made up, and labelled so; texts are hostile."""

import json
from pathlib import Path
from typing import Any

from prompts.dataset import assemble, write_chunk
from prompts.record import Kind, Message, Record, Rejected, Usage
from service import events, jobs, keys, login, timetable
from service.datasets import summary_of
from service.keys import NewKey
from service.probe import Probe
from service.quotas import Limits
from service.site import Site
from service.tables import Job, PendingVerdict, Run, RunState, State, now
from service.timetable import ScheduleSpec
from tests.service.given import add_teacher
from tests.trainer.report.made_up import measured, stage

XSS = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=document.title='owned'>",
    "</textarea></pre><iframe srcdoc='<script>parent.document.title=1</script>'></iframe>",
    "{{ 7 * 7 }} {% raw %} javascript:alert(1)",
)


RECIPE = {"build": {"kind": "cot", "teacher": "made-up", "seeds": "file-made-up"}}


def answered(count: int) -> list[Record | Rejected]:
    """Rows as a chain-of-thought build leaves them; every fourth was not accepted."""
    return [_answered(number) for number in range(count)]


def _answered(n: int) -> Record | Rejected:
    total = 3 + n + n % 7
    question = f"Ann has {n + 3} apples and buys {n % 7} more. How many apples has she?"
    thought = f"Ann starts with {n + 3} apples. {n + 3} plus {n % 7} makes {total}."
    common: dict[str, Any] = {
        "id": f"story-{n:04d}",
        "kind": Kind.COT,
        "prompt": (Message(role="user", content=f"{question}\nThink step by step."),),
        "reasoning": thought,
        "gold": str(total),
        "teacher": "made-up",
        "usage": Usage(prompt_tokens=31, completion_tokens=18 + (n * n) % 41),
        "seed": json.dumps({"id": f"story-{n:04d}", "question": question, "answer": total}),
        "finish_reason": "stop",
    }
    if n % 4 == 3:
        reason = ("wrong_answer", "truncated", "wrong_answer", "target")[n // 4 % 4]
        said = f"{thought} The answer is {total + 1}."
        detail = f"answer {total + 1}, gold {total}" if reason == "wrong_answer" else ""
        end = "not_needed" if reason == "target" else "rejected"
        return Rejected(
            **common,
            end=end,
            reason=reason,
            detail=detail,
            raw=(said,),
            completion=(Message(role="assistant", content=said),),
            answer=str(total + 1),
        )
    said = f"{thought} The answer is {total}."
    return Record(
        **common,
        completion=(Message(role="assistant", content=said),),
        answer=str(total),
        split=("train", "train", "train", "validation", "test")[n // 4 % 5],
        content_hash=f"{n:064x}",
    )


def hostile(rows: list[Record | Rejected]) -> list[Record | Rejected]:
    """Rows whose every text holds a payload."""
    return [_spoilt(row, XSS[number % len(XSS)]) for number, row in enumerate(rows)]


def _spoilt(row: Record | Rejected, payload: str) -> Record | Rejected:
    turns = (*row.prompt, Message(role="user", content=payload))
    common: dict[str, Any] = {"prompt": turns, "reasoning": payload, "answer": payload}
    if isinstance(row, Record):
        said = (Message(role="assistant", content=f"{payload} The answer is 3."),)
        return row.model_copy(update=common | {"completion": said, "gold": payload})
    said = (Message(role="assistant", content=payload),)
    changes = {"raw": (payload,), "completion": said, "detail": payload}
    return row.model_copy(update=common | changes)


def add_dataset(site: Site, folder: Path, rows: list[Record | Rejected], name: str) -> str:
    """Publish rows as a dataset; its id."""
    folder.mkdir(parents=True, exist_ok=True)
    chunk = write_chunk(folder / "chunk.parquet", rows).path
    out = folder / "dataset"
    assemble(out, [chunk], recipe=RECIPE, seeds=len(rows), name=name, deduplicate=False)
    with site.sessions.writing.begin() as session:
        return site.store.publish(
            session, "dataset", name, out, summary=summary_of(out), inputs=[]
        ).id


def add_job(site: Site, kind: str, name: str, **fields: Any) -> str:
    """A job's row, not submitted: no worker will touch it."""
    spec = {"kind": kind, "note": XSS[0]} | fields.pop("spec", {})
    job = Job(id=f"job-{name}", kind=kind, name=name, spec=spec, **fields)
    with site.sessions.writing.begin() as session:
        session.add(job)
        session.flush()
        events.emit(session, job.id, events.STATE, {"state": State.QUEUED})
    return job.id


def tell(site: Site, job_id: str, *told: tuple[str, dict[str, Any]]) -> None:
    with site.sessions.writing.begin() as session:
        for kind, data in told:
            events.emit(session, job_id, kind, data)


def add_model(site: Site, folder: Path, name: str, inputs: list[str], **summary: Any) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with site.sessions.writing.begin() as session:
        return site.store.publish(session, "model", name, folder, summary=summary, inputs=inputs).id


def fill(site: Site, folder: Path) -> dict[str, str]:
    """Something of everything; page -> the id that it shows."""
    earlier = add_dataset(site, folder / "earlier", answered(8), "stories")
    dataset = add_dataset(site, folder / "later", hostile(answered(160)), "stories")
    with site.sessions.writing.begin() as session:
        said = PendingVerdict(dataset_id=dataset, row_id="story-0001", accept=False, note=XSS[4])
        session.add(said)
    after = measured(170, 150, 140, 30_000_000, 60_000_000, 900.0)
    measurement = after.model_dump(mode="json")
    student = add_model(
        site,
        folder / "student",
        "student",
        [dataset, "/models/base"],
        role="student",
        method=XSS[1],
        measurement=measurement,
    )
    small = add_model(site, folder / "small", "student-svd", [student], role="stage")
    add_teacher(site, "quick", Probe(ok=True, context_tokens=4096, max_logprobs=20, latency_s=0.04))
    add_teacher(site, "lost", Probe(ok=False, error=XSS[0]))
    running = {"state": State.RUNNING, "started_at": now()}
    progress = {"done": 40, "total": 80, "unit": "rows", "accepted": 30, "rejected": 10}
    build = add_job(site, "build", "build1", progress=progress, **running)
    tell(
        site,
        build,
        ("progress", progress | {"completion_tokens_per_s": 812.5, "in_flight": 64}),
        ("warning", {"detail": XSS[2]}),
    )
    about = {"train": {"dataset": dataset}}
    train = add_job(site, "train", "train1", result={"model": student}, spec=about, **running)
    steps = [("step", _step(n)) for n in range(1, 201)]
    tell(site, train, *steps)
    for step, loss in ((100, 0.9), (200, 0.62)):
        tell(site, train, ("validation", {"step": step, "loss": loss, "entropy": loss * 1.3}))
        tell(site, train, ("samples", {"step": step, "rows": [_sample(n, step) for n in (0, 1)]}))
        tell(site, train, ("phase", {"name": "best", "detail": f"step {step}"}))
        tell(site, train, ("phase", {"name": "checkpoint", "detail": f"step {step}, 0.12 s"}))
    compress = add_job(site, "compress", "compress1", state=State.SUCCEEDED, finished_at=now())
    tell(site, compress, ("stage", {"index": 0, "kind": "svd", "report": _stage(after)}))
    failed = add_job(
        site, "recipe", "failed1", state=State.FAILED, detail=XSS[3], finished_at=now()
    )
    return {
        "failed": failed,
        "schedule": add_schedule(site),
        "dataset": dataset,
        "earlier": earlier,
        "model": student,
        "small": small,
        "build": build,
        "train": train,
        "compress": compress,
    }


def add_key(site: Site, ids: dict[str, str]) -> tuple[dict[str, str], str]:
    """Ask everybody for a key from now on: the ids with the key's, and a session's cookie."""
    key, _ = keys.create(site, NewKey(name=XSS[1], limits=Limits(jobs_at_once=3)))
    ticket = login.new_ticket(by_link=True)
    return ids | {"key": key.id}, login.sealed(site.settings, ticket)


def add_schedule(site: Site) -> str:
    """One with a run that was skipped."""
    job = {"kind": "serve", "model": "org/m", "name": "t"}
    wanted = {"name": "nightly", "cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": job}
    made = timetable.create(site, ScheduleSpec.model_validate(wanted), now())
    with site.sessions.writing.begin() as session:
        skipped = {"state": RunState.SKIPPED, "detail": XSS[0]}
        session.add(Run(schedule_id=made.id, slot_utc=now(), **skipped))
    return made.id


def _step(n: int) -> dict[str, Any]:
    """What a step of a distillation tells: a loss of two terms, falling with a ripple."""
    kl = 2.4 / (1 + n / 20) + 0.04 * (n * 7919 % 13 - 6) / 6
    hard = 1.6 / (1 + n / 25)
    place = {"step": n, "steps": 200, "epoch": n / 100, "tokens_per_s": 5200.0 + n * 31 % 300}
    shape = {"learning_rate": 1e-3 * (1 - n / 250), "grad_norm": 1 / (1 + n / 50)}
    terms = {"forward_kl": kl, "cross_entropy": hard, "entropy": 0.7 + 2 / (1 + n / 15)}
    return place | shape | terms | {"loss": kl + hard}


def _sample(n: int, step: int) -> dict[str, Any]:
    return {
        "id": f"story-{n:04d}",
        "prompt": f"Ann has {n + 3} apples and buys {n} more. How many apples has she?",
        "reference": f"{n + 3} plus {n} makes {2 * n + 3}, the dataset's own answer.",
        "student": f"student after {step} {XSS[n]}",
        "ended": step > 100,
    }


def _stage(after: Any) -> dict[str, Any]:
    before = measured(180, 160, 150, 40_000_000, 80_000_000, 800.0)
    made: dict[str, Any] = stage(0, "svd", after)
    made["before"] = made["before"] | {"measurement": before}
    made["before"]["shape"] = made["before"]["shape"] | {"weight_bytes": before.weight_bytes}
    for end in ("before", "after"):
        made[end] = made[end] | {"measurement": made[end]["measurement"].model_dump(mode="json")}
    return made


def known_jobs(site: Site) -> list[str]:
    with site.sessions.reading() as session:
        return [job.id for job in jobs.listing(session)]
