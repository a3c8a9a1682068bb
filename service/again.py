"""A job once more: with edits (clone), or over the rows that it rejected (retry)."""

import copy
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from prompts.dataset import read_rejected
from prompts.record import Frozen, Reason
from service import jobs
from service.errors import faults
from service.problems import Fault, bad_input, conflict
from service.site import Site
from service.spec import BuildJob, JobSpec, job_spec
from service.tables import FINISHED, Artifact, Job

FOR_ALL_ROWS = ("limit", "target_rows", "smoke", "budget")
"""What a build asked of all its rows means nothing for the few that are asked again."""

WRITTEN_BY_TEACHER = ("self_instruct", "magpie")
"""Methods without input rows."""


class Clone(Frozen):
    """What is different in the clone."""

    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted path into the spec -> value: `build.sampling.temperature`: 0.7."""


class Retry(Clone):
    """Which rejected rows are asked again, and how."""

    reasons: tuple[Reason, ...] = ()
    """Only rows that were rejected for these; none given: all but duplicates."""
    build: dict[str, Any] | None = None
    """A build's spec in place of the old one; its seeds and name are not looked at."""


def clone_spec(site: Site, job_id: str, wanted: Clone) -> JobSpec:
    """A job's spec with edits. Raises a 404 problem, or 422 with the path of what is wrong."""
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
    return _parsed(edited(job.spec, wanted.set))


def retry_spec(site: Site, job_id: str, wanted: Retry) -> JobSpec:
    """The build of the rows that a finished build rejected; their seeds are put into the store.

    The dataset that comes of it is called after the first with `-retry` behind. Raises problems:
    404, 409 if the job is no finished build with a dataset, 422 if there is no such row or
    if the method's rows can't be asked again.
    """
    job, dataset = _finished_build(site, job_id)
    spec = copy.deepcopy(job.spec)
    old = spec["build"]
    if wanted.build is not None:
        spec["build"] = {"kind": old["kind"], "teacher": old["teacher"]} | wanted.build
    new = {name: value for name, value in spec["build"].items() if name not in FOR_ALL_ROWS}
    _check_has_instructions(old, new)
    if _shows_demonstrations(new) and new.get("pool") is None:
        new["pool"] = old.get("pool") or old["seeds"]  # Rejected rows would show each other.
    new |= {"seeds": _kept(site, job, dataset, wanted.reasons), "name": f"{old['name']}-retry"}
    new.pop("incremental", None)
    return _parsed(edited(spec | {"build": new}, wanted.set))


def edited(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a spec with values set at dotted paths. Raises a 422 problem for a path that leads
    nowhere."""
    changed: dict[str, Any] = copy.deepcopy(dict(spec))
    for path, value in changes.items():
        *steps, last = path.split(".")
        here: Any = changed
        for step in steps:
            here = _inside(here, step, path)
        if isinstance(here, list) and last.isdigit() and int(last) < len(here):
            here[int(last)] = value
        elif isinstance(here, dict):
            here[last] = value
        else:
            raise bad_input([Fault(path, f"there is no place {last!r} in the spec")])
    return changed


def _inside(here: Any, step: str, path: str) -> Any:
    if isinstance(here, list) and step.isdigit() and int(step) < len(here):
        return here[int(step)]
    if isinstance(here, dict):
        if here.get(step) is None:
            here[step] = {}
        return here[step]
    raise bad_input([Fault(path, f"there is no place {step!r} in the spec")])


def _check_has_instructions(*builds: Mapping[str, Any]) -> None:
    """Raises a 422 problem for methods whose rows are places for what the teacher writes."""
    for build in builds:
        method = (build.get("method") or {}).get("kind")
        if method in WRITTEN_BY_TEACHER:
            problem = (
                f"a rejected row of method {method} holds no instruction to ask again, for the"
                " teacher writes it: clone the job, with more rounds or other limits"
            )
            raise bad_input([Fault("build.method", problem)])


def _shows_demonstrations(build: Mapping[str, Any]) -> bool:
    if build.get("kind") == "icl":
        return build.get("demonstrations") != 0
    return build.get("kind") == "cot" and bool(build.get("demonstrations"))


def _parsed(spec: dict[str, Any]) -> JobSpec:
    try:
        return job_spec.validate_python(spec)
    except ValidationError as error:
        placed = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        raise bad_input(list(faults(placed, spec))) from error


def _finished_build(site: Site, job_id: str) -> tuple[Job, Artifact]:
    with site.sessions.reading() as session:
        job = jobs.get(session, job_id)
        dataset = session.get(Artifact, job.result.get("dataset") or "")
    if not isinstance(jobs.spec_of(job), BuildJob):
        raise conflict("Not a build", f"{job_id} is a {job.kind} job; only builds have rows.")
    if job.state not in FINISHED or dataset is None:
        raise conflict(
            "The build has no dataset",
            f"{job_id} is {job.state}: its rejected rows are known once its dataset is published.",
        )
    return job, dataset


def _kept(site: Site, job: Job, dataset: Artifact, reasons: Sequence[Reason]) -> str:
    """Id of a file with the seeds of the rejected rows."""
    site.store.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=site.store.root, prefix="retry-") as folder:
        path = Path(folder) / f"{job.name}-rejected.jsonl"
        rows = 0
        with path.open("w", encoding="utf-8") as out:
            for seed in _rejected_seeds(site.store.path(dataset), reasons):
                out.write(seed + "\n")
                rows += 1
        if not rows:
            found = ", ".join(job.result.get("reasons", {})) or "none"
            raise bad_input([Fault("reasons", f"no row was rejected so; the reasons: {found}")])
        summary = {"purpose": "seeds", "rows": rows}
        with site.sessions.writing.begin() as session:
            kept = site.store.publish(
                session, "file", path.name, path, summary=summary, inputs=[dataset.id]
            )
            return kept.id


def _rejected_seeds(dataset: Path, reasons: Sequence[Reason]) -> Iterator[str]:
    wanted = frozenset(map(str, reasons)) or frozenset(map(str, Reason)) - {Reason.DUPLICATE}
    for row in read_rejected(dataset):
        if row.end == "rejected" and row.reason in wanted:
            seed = json.loads(row.seed)
            yield json.dumps(seed | {"id": row.id}, ensure_ascii=False)
