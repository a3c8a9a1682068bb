"""Checks of a spec against what is really there, before anything is spent."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from prompts.intake import TeacherLimitError, check_build, check_teacher
from prompts.seeds import SeedError
from prompts.spec import BuildSpec, IclBuild
from service import teachers, tokenizers
from service.problems import Fault, Problem, bad_input
from service.site import Site
from service.spec import (
    BatchJob,
    BuildJob,
    CompressJob,
    JobSpec,
    RecipeJob,
    ReportJob,
    ServeJob,
    TrainJob,
)
from service.tables import Artifact, Job
from trainer.spec import CompressSpec, EvalSpec, ForwardKL, TrainSpec

T = TypeVar("T")


def check(site: Site, spec: JobSpec) -> JobSpec:
    """The spec with its references resolved: ids of artifacts, absolute paths of directories.

    Raises one 422 problem that lists every fault found. May ask a teacher whose last probe failed
    once more.
    """
    checker = _Checker(site)
    checked = checker.job(spec)
    if checker.faults:
        raise bad_input(checker.faults)
    return checked


class _Checker:
    """Walks a spec once and collects what is wrong. No transaction outlives a look-up."""

    def __init__(self, site: Site) -> None:
        self.faults: list[Fault] = []
        self._site = site

    def job(self, spec: JobSpec) -> JobSpec:
        match spec:
            case BuildJob():
                return spec.model_copy(update={"build": self._build("build", spec.build, None)})
            case TrainJob():
                return spec.model_copy(
                    update={
                        "train": self._train(spec.train, required=True),
                        "evaluate": self._evaluation("evaluate", spec.evaluate),
                    }
                )
            case CompressJob():
                compress = self._compress(spec.compress, required=True)
                return spec.model_copy(update={"compress": compress})
            case ServeJob():
                return self._serve("", spec)
            case ReportJob():
                return self._report(spec)
            case BatchJob():
                file = self._file("input", spec.input)
                return spec if file is None else spec.model_copy(update={"input": file.id})
            case RecipeJob():
                return self._recipe(spec)

    def _recipe(self, spec: RecipeJob) -> RecipeJob:
        parts = {
            "serve": spec.serve and self._serve("serve.", spec.serve),
            "build": spec.build and self._build("build", spec.build, spec.serve),
            "train": spec.train and self._train(spec.train, required=False),
            "compress": spec.compress and self._compress(spec.compress, required=False),
            "evaluate": self._evaluation("evaluate", spec.evaluate),
        }
        return spec.model_copy(update=parts)

    def _build(self, location: str, spec: BuildSpec, serve: ServeJob | None) -> BuildSpec:
        names: dict[str, str | None] = {"seeds": spec.seeds}
        if isinstance(spec, IclBuild):
            names["pool"] = spec.pool
        files = {field: self._file(f"{location}.{field}", name) for field, name in names.items()}
        if not self.faults:
            self._seeds(location, spec, files)
        self._teacher(location, spec, serve)
        found = {field: file.id for field, file in files.items() if file is not None}
        return spec.model_copy(update=found)

    def _seeds(self, location: str, spec: BuildSpec, files: dict[str, Artifact | None]) -> None:
        seeds = files["seeds"]
        if seeds is None:
            return
        pool = files.get("pool") or seeds
        try:
            check_build(spec, self._lines(seeds), self._lines(pool))
        except SeedError as error:
            self._fault(f"{location}.seeds", f"{seeds.name}: {error}")

    def _lines(self, file: Artifact) -> Iterator[bytes]:
        with self._site.store.path(file).open("rb") as lines:
            yield from lines

    def _teacher(self, location: str, spec: BuildSpec, serve: ServeJob | None) -> None:
        if serve is not None:
            self._limits(location, spec, serve.max_model_len, serve.max_logprobs)
            return
        where = f"{location}.teacher"
        teacher = self._found(where, lambda session: teachers.get(session, spec.teacher))
        if teacher is None:
            return
        if not teacher.probe.get("ok"):
            registration = teachers.registration_of(teacher, self._site.settings)
            probe = asyncio.run(teachers.probe_again(registration))
            with self._site.sessions.writing.begin() as session:
                teachers.note(teachers.get(session, spec.teacher), probe)
            teachers.note(teacher, probe)
        if not teacher.probe["ok"]:
            self._fault(where, f"teacher {spec.teacher!r} does not work: {teacher.probe['error']}")
            return
        context, logprobs = (teacher.probe.get(key) for key in ("context_tokens", "max_logprobs"))
        self._limits(location, spec, context, logprobs)

    def _limits(
        self, location: str, spec: BuildSpec, context_tokens: int | None, max_logprobs: int | None
    ) -> None:
        try:
            check_teacher(spec, context_tokens, max_logprobs)
        except TeacherLimitError as error:
            self._fault(f"{location}.sampling", str(error))

    def _train(self, spec: TrainSpec, required: bool) -> TrainSpec:
        found: dict[str, str | None] = {
            "dataset": self._dataset("train.dataset", spec.dataset, required),
            "student": self._model("train.student", spec.student),
        }
        if isinstance(spec, ForwardKL):
            found["teacher"] = self._model("train.teacher", spec.teacher)
            self._same_vocabulary(found["student"], found["teacher"])
        return spec.model_copy(update=found)

    def _same_vocabulary(self, student: str | None, teacher: str | None) -> None:
        if student is None or teacher is None:
            return
        with self._site.sessions.reading() as session:
            places = [self._site.store.locate_model(session, name) for name in (student, teacher)]
        difference = tokenizers.difference(*(Path(place) for place in places))
        if difference is not None:
            self._fault("train.teacher", difference)

    def _compress(self, spec: CompressSpec, required: bool) -> CompressSpec:
        if required and spec.model is None:
            self._fault("compress.model", "name a model to compress")
        # Without a dataset a stage has nothing to calibrate on.
        found = {
            "model": spec.model and self._model("compress.model", spec.model),
            "dataset": self._dataset("compress.dataset", spec.dataset, required),
            "evaluate": self._evaluation("compress.evaluate", spec.evaluate),
        }
        return spec.model_copy(update=found)

    def _serve(self, location: str, spec: ServeJob) -> ServeJob:
        with self._site.sessions.reading() as session:
            names = {teacher.name: teacher.serve_job_id for teacher in teachers.listing(session)}
        if names.get(spec.name, "served") is None:
            message = f"a teacher {spec.name!r} is registered at another server; use another name"
            self._fault(f"{location}name", message)
        return spec.model_copy(update={"model": self._model(f"{location}model", spec.model)})

    def _report(self, spec: ReportJob) -> ReportJob:
        if spec.job is None:
            self._fault("job", "name the recipe job to report on")
            return spec
        recipe = self._found("job", lambda session: session.get(Job, spec.job))
        if recipe is None or recipe.kind != "recipe":
            self._fault("job", f"{spec.job!r} is not a recipe job")
        evaluate = self._evaluation("evaluate", spec.evaluate)
        return spec.model_copy(update={"evaluate": evaluate})

    def _dataset(self, location: str, reference: str | None, required: bool) -> str | None:
        if reference is None:
            if required:
                self._fault(location, "name a dataset")
            return None
        store = self._site.store
        dataset = self._found(
            location, lambda session: store.resolve(session, reference, "dataset")
        )
        if dataset is not None and dataset.summary.get("accepted") == 0:
            self._fault(location, f"dataset {dataset.id} is empty: its build accepted no row")
        return dataset.id if dataset is not None else None

    def _evaluation(self, location: str, spec: EvalSpec | None) -> EvalSpec | None:
        if spec is None:
            return None
        path = Path(spec.data).expanduser().absolute()
        if "/" in spec.data and self._site.store.allow_server_paths:
            if not path.is_file():
                self._fault(f"{location}.data", f"there is no file {path}")
            return spec.model_copy(update={"data": str(path)})
        file = self._file(f"{location}.data", spec.data)
        return spec.model_copy(update={"data": file.id}) if file is not None else spec

    def _file(self, location: str, reference: str | None) -> Artifact | None:
        if reference is None:
            return None
        store = self._site.store
        return self._found(location, lambda session: store.resolve(session, reference, "file"))

    def _model(self, location: str, reference: str) -> str | None:
        store = self._site.store
        return self._found(location, lambda session: store.name_model(session, reference))

    def _found(self, location: str, look_up: Callable[[Session], T]) -> T | None:
        try:
            with self._site.sessions.reading() as session:
                return look_up(session)
        except Problem as problem:
            self._fault(location, problem.detail)
            return None

    def _fault(self, location: str, message: str) -> None:
        self.faults.append(Fault(location, message))
