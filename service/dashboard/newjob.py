"""A new job: a form and its YAML side by side, checked as one types, sent by the one path."""

import uuid
from typing import Annotated, Any

import anyio.to_thread
import yaml
from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from starlette.datastructures import FormData

from prompts.yaml_text import read_yaml
from service import access, ancestry, artifacts, errors, jobs, preflight, registry
from service.dashboard import estimate, fields
from service.dashboard.page import page, page_router, require, see
from service.preview import PreviewRequest, preview
from service.problems import Fault, Problem, bad_input
from service.routes.deps import TheSite
from service.site import Site
from service.spec import BuildJob, JobSpec, RecipeJob, job_spec

router = page_router()

CHOICES_SHOWN = 100
PREVIEWED = 10


@router.get("/jobs/new")
def show_new(
    request: Request,
    site: TheSite,
    kind: str = "cot",
    copy_of: str | None = None,
    dataset: str = "",
    model: str = "",
    teacher: str = "",
) -> HTMLResponse:
    """A form of a kind, with what it is to be about if the address says so; or the spec of an
    earlier job to change."""
    if kind == "compress" and model and not dataset:
        # To calibrate on, what it was trained on is the nearest.
        with site.sessions.reading() as session:
            dataset = ancestry.dataset_of(session, model) or ""
    spec = fields.about(kind, dataset=dataset, model=model, teacher=teacher)
    if copy_of is not None:
        with site.sessions.reading() as session:
            spec = jobs.get(session, copy_of).spec
    return _editor(request, site, spec, _dumped(spec), None, 200)


@router.post("/jobs/new/check")
async def check(request: Request, site: TheSite) -> HTMLResponse:
    """What is typed, read and checked: the other half of the editor, and the verdict."""
    form = await request.form()
    return await anyio.to_thread.run_sync(_checked, request, site, form)


@router.post("/jobs/new")
def submit(
    request: Request,
    site: TheSite,
    text: Annotated[str, Form(alias="yaml", max_length=1_000_000)] = "",
    key: Annotated[str, Form(max_length=100)] = "",
) -> Response:
    """Submit the YAML; what is wrong comes back beside it."""
    try:
        spec = parsed(text)
        require(request, access.required_for(spec))
        by = request.state.caller.key_id
        job = jobs.submit(site, spec, idempotency_key=key or None, by=by)
    except Problem as problem:
        return _editor(request, site, _loaded(text), text, problem, problem.status)
    return see(f"/jobs/{job.id}")


@router.post("/jobs/new/preview")
def show_preview(
    request: Request,
    site: TheSite,
    text: Annotated[str, Form(alias="yaml", max_length=1_000_000)] = "",
) -> HTMLResponse:
    """Ask the first rows for real and judge them; nothing is stored."""
    try:
        spec = parsed(text)
        require(request, access.required_for(spec))
        found = preview(site, PreviewRequest(spec=spec, rows=PREVIEWED))
    except Problem as problem:
        return page(request, "newjob_preview.html", problem=problem, found=None)
    whole = estimate.from_preview(site, _resolved(site, spec), found)
    return page(request, "newjob_preview.html", problem=None, found=found, whole=whole)


def parsed(text: str) -> JobSpec:
    """YAML as a spec. Raises a 422 problem with every fault and its place."""
    try:
        content = read_yaml(text)
    except yaml.YAMLError as error:
        raise bad_input([Fault("YAML", " ".join(str(error).split()))], "Not YAML") from error
    try:
        return job_spec.validate_python(content)
    except ValidationError as error:
        placed = [one | {"loc": ("body", *one["loc"])} for one in error.errors()]
        faults = errors.faults(placed, content)
        raise bad_input(list(faults), "Not a job yet") from error


def _checked(request: Request, site: Site, form: FormData) -> HTMLResponse:
    text = str(form.get("yaml", ""))
    by_form = form.get("edited") == "form"
    spec = _loaded(text)
    shown = fields.form_of(spec)
    if by_form and shown is not None:
        given = {name[2:]: str(value) for name, value in form.items() if name.startswith("f.")}
        spec = fields.merged(spec, shown, given)
        text = _dumped(spec)
    verdict = _verdict(site, text)
    return page(
        request,
        "newjob_checked.html",
        by_form=by_form,
        text=text,
        **verdict,
        **_form(site, spec),
    )


def _verdict(site: Site, text: str) -> dict[str, Any]:
    try:
        spec = parsed(text)
        if _holds_rows(spec):
            # The check would put them into the store, at every key that is pressed.
            return {"problem": None, "estimate": "Its rows are looked at when it is submitted."}
        return {"problem": None, "estimate": estimate.estimate(site, preflight.check(site, spec))}
    except Problem as problem:
        return {"problem": problem, "estimate": ""}


def _resolved(site: Site, spec: JobSpec) -> JobSpec:
    """With ids in the place of names, where nothing is wrong with it."""
    try:
        return spec if _holds_rows(spec) else preflight.check(site, spec)
    except Problem:
        return spec


def _holds_rows(spec: JobSpec) -> bool:
    """Whether seeds stand in the spec itself."""
    build = spec.build if isinstance(spec, BuildJob | RecipeJob) else None
    return build is not None and not isinstance(build.seeds, str) and bool(build.seeds)


def _editor(
    request: Request,
    site: Site,
    spec: dict[str, Any],
    text: str,
    problem: Problem | None,
    status: int,
) -> HTMLResponse:
    return page(
        request,
        "newjob.html",
        status,
        text=text,
        key=uuid.uuid4().hex,
        problem=problem,
        estimate=None,
        titles=fields.TITLES,
        **_form(site, spec),
    )


def _form(site: Site, spec: dict[str, Any]) -> dict[str, Any]:
    shown = fields.form_of(spec)
    form = fields.FORMS[shown] if shown is not None else ()
    wanted: set[str] = {field.input for field in form}
    return {
        "form": shown,
        "fields": [
            (field, fields.value_at(spec, field.path), fields.shown_default(shown, field.path))
            for field in form
            if shown is not None
        ],
        "choices": _choices(site, wanted),
    }


def _choices(site: Site, wanted: set[str]) -> dict[str, list[tuple[str, str]]]:
    """Input -> (value, label) of what there is to choose from."""
    found: dict[str, list[tuple[str, str]]] = {}
    if wanted & {"seeds", "evaluation"}:
        files = artifacts.listing(site, "file", name=None, before=None, limit=CHOICES_SHOWN)
        for purpose in ("seeds", "evaluation"):
            found[purpose] = [
                (file.id, f"{file.name} · {file.summary.get('rows', '?')} rows · {file.id}")
                for file in files.artifacts
                if file.summary.get("purpose", purpose) in (purpose, "pool")
            ]
    if "teacher" in wanted:
        found["teacher"] = [
            (one.name, f"{one.name} · {one.served_model}") for one in registry.listing(site)
        ]
    for kind in ("dataset", "model"):
        if kind in wanted:
            listed = artifacts.listing(site, kind, name=None, before=None, limit=CHOICES_SHOWN)
            found[kind] = [
                (one.id, f"{one.name} version {one.version} · {one.id}") for one in listed.artifacts
            ]
    return found


def _loaded(text: str) -> dict[str, Any]:
    try:
        content = read_yaml(text)
    except yaml.YAMLError:
        return {}
    return content if isinstance(content, dict) else {}


def _dumped(spec: dict[str, Any]) -> str:
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=88)
