"""The report job: measure the table's two ends, gather the facts, draw."""

from collections.abc import Iterator

from service import ancestry, jobs
from service.jobs import spec_of
from service.problems import Fault, bad_input
from service.spec import ReportJob
from service.tables import Job
from workers import facts
from workers.chain_models import ends
from workers.errands import Command, Errand, Output, measure
from workers.inputs import Inputs, eval_paths, write_json


def report_commands(errand: Errand) -> Iterator[Command]:
    """Measure teacher and student base if that was asked for, then draw."""
    spec = spec_of(errand.job)
    assert isinstance(spec, ReportJob)
    chain_job, parts = _chain(errand, spec)
    with errand.site.sessions.reading() as session:
        inputs = Inputs(errand.site.store, session, errand.used)
        evaluate = eval_paths(spec.evaluate, inputs) if spec.evaluate is not None else None
        found = ends(inputs, parts)
    if evaluate is not None:
        for role, end in found.items():
            if end.loadable:
                yield from measure(errand, role, end.path, evaluate)
    chain = facts.gather(errand, chain_job, parts, found)
    path = write_json(errand.folder / "chain.json", chain.model_dump(mode="json"))
    words = ("report", "--chain", str(path), "--out", str(errand.out))
    yield Command("report", words, chain_job.name)


def report_outputs(errand: Errand) -> list[Output]:
    """The report's directory, the facts it was drawn from beside it."""
    spec = spec_of(errand.job)
    assert isinstance(spec, ReportJob)
    chain_job, parts = _chain(errand, spec)
    chain = errand.folder / "chain.json"
    if not (errand.out / "chain.json").exists():
        (errand.out / "chain.json").write_bytes(chain.read_bytes())
    inputs = [*errand.used, *facts.published(parts)]
    summary = {"job": chain_job.id, "files": sorted(path.name for path in errand.out.iterdir())}
    return [Output("report", chain_job.name, errand.out, summary, list(dict.fromkeys(inputs)))]


def _chain(errand: Errand, spec: ReportJob) -> tuple[Job, list[Job]]:
    """The job that the report tells of, and its parts: those of a recipe; else the job itself and
    the jobs that made what it started from."""
    wanted = spec.job or errand.job.parent_id
    if wanted is None:
        raise bad_input([Fault("job", "name the job that the report is to tell of")])
    with errand.site.sessions.reading() as session:
        job = jobs.get(session, wanted)
        return job, jobs.children(session, job.id) or ancestry.behind(session, job)
