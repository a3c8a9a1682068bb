"""Checks of a spec against what is really there, before anything is spent."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from prompts.checks.spec import JudgeCheck
from prompts.intake import (
    PoolError,
    SpecError,
    check_build,
    check_checks,
    check_likeness,
    check_python,
    limit_faults,
)
from prompts.overlap import evaluation_texts
from prompts.seeds import SeedError, scan_seeds
from prompts.spec import BuildSpec, RescoreBuild, Shots
from prompts.spec.asked import asked_teachers, asks_nobody, embedder_of
from prompts.tables import file_lines
from service import teachers, tokenizers
from service.affordable import budget_faults
from service.asked_trainings import built_faults, served_faults
from service.evaluation import question_fault
from service.problems import Fault, Problem, bad_input
from service.signals import in_process_fault, signal_fault, tokenizer_fault
from service.site import Site
from service.sources import name_source, newest_dataset, source_lines
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
from service.store import light
from service.tables import Artifact, Job, Teacher
from trainer.spec import CompressSpec, EvalSpec, MiniLLM, ServedKL, TrainSpec, WithTeacher

T = TypeVar("T")
REPORTED = ("recipe", "train", "compress")
"""Kinds of jobs that a report can tell of."""


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
        for field, problem in built_faults(spec):
            self._fault(field, problem)
        alone = spec.build is None and spec.train is None
        train = spec.train and self._train(spec.train, required=False)
        trained = train.student if train is not None else None
        parts = {
            "serve": spec.serve and self._serve("serve.", spec.serve),
            "build": spec.build and self._build("build", spec.build, spec.serve),
            "train": train,
            "compress": spec.compress and self._compress(spec.compress, alone, trained),
            "evaluate": self._evaluation("evaluate", spec.evaluate),
        }
        return spec.model_copy(update=parts)

    def _build(self, location: str, spec: BuildSpec, serve: ServeJob | None) -> BuildSpec:
        names: dict[str, str | None] = {}
        if isinstance(spec, Shots):
            names["pool"] = spec.pool
        files = {field: self._file(f"{location}.{field}", name) for field, name in names.items()}
        spec = self._sources(location, spec)
        if not self.faults:
            self._seeds(location, spec, files.get("pool"))
        files["decontaminate"] = self._evaluation_set(location, spec)
        self._teachers(location, spec, serve)
        self._embedder(location, spec, serve)
        with self._site.sessions.reading() as session:
            problems = {
                "signal": signal_fault(session, spec, serve),
                "teacher": tokenizer_fault(self._site.store, session, spec, serve),
            }
            loading = in_process_fault(self._site.store, session, spec, serve)
        if loading is not None:
            self._fault(f"{location}.{loading[0]}", loading[1])
        for field, problem in problems.items():
            if problem is not None:
                self._fault(f"{location}.{field}", problem)
        found = {field: file.id for field, file in files.items() if file is not None}
        return self._against(location, spec.model_copy(update=found))

    def _evaluation_set(self, location: str, spec: BuildSpec) -> Artifact | None:
        where = f"{location}.decontaminate"
        file = self._file(where, spec.decontaminate)
        if file is not None:
            try:
                lines = file_lines(self._site.store.path(file), file.name)
                rows = (row for _, row in scan_seeds(lines))
                for _ in evaluation_texts(rows):
                    pass
            except ValueError as error:  # A SeedError is one, too.
                self._fault(where, f"{file.name}: {error}")
        return file

    def _against(self, location: str, spec: BuildSpec) -> BuildSpec:
        """Datasets that rows are compared with, by their ids."""
        near = spec.near_duplicates
        if near is None or not near.against:
            return spec
        where = f"{location}.near_duplicates.against"
        found = [self._dataset(f"{where}.{n}", name, True) for n, name in enumerate(near.against)]
        against = tuple(name for name in found if name is not None)
        return spec.model_copy(
            update={"near_duplicates": near.model_copy(update={"against": against})}
        )

    def _sources(self, location: str, spec: BuildSpec) -> BuildSpec:
        """Seeds and the version to begin from, in the form that specs are stored with."""
        found: dict[str, object] = {}
        if isinstance(spec, RescoreBuild) and not str(spec.seeds).startswith("file-"):
            return spec.model_copy(
                update={"seeds": self._dataset(f"{location}.seeds", str(spec.seeds), True)}
            )
        try:
            if spec.takes_seeds:
                found["seeds"] = name_source(self._site, spec.seeds)
        except Problem as problem:
            self._fault(f"{location}.seeds", problem.detail)
        if spec.incremental:
            found["incremental"] = self._earlier(location, spec)
        return spec.model_copy(update=found)

    def _earlier(self, location: str, spec: BuildSpec) -> str | bool:
        if isinstance(spec.incremental, str):
            return self._dataset(f"{location}.incremental", spec.incremental, True) or False
        with self._site.sessions.reading() as session:
            return newest_dataset(session, spec.name) or False

    def _seeds(self, location: str, spec: BuildSpec, pool: Artifact | None) -> None:
        try:
            if not spec.takes_seeds:
                check_checks(spec)
                check_likeness(spec)
                return
            assert isinstance(spec.seeds, str)
            check_python(spec, self._site.settings.allow_python_verifiers)
            shots = source_lines(self._site, spec, pool.id if pool is not None else spec.seeds)
            check_build(spec, source_lines(self._site, spec), shots)
        except PoolError as error:
            of = f"{pool.name} ({pool.id})" if pool is not None else f"{spec.seeds}"
            self._fault(f"{location}.pool", f"{of}: {error}")
        except SeedError as error:
            self._fault(f"{location}.seeds", f"{spec.seeds}: {error}")
        except SpecError as error:
            self._fault(f"{location}.{error.field}", error.problem)

    def _teachers(self, location: str, spec: BuildSpec, serve: ServeJob | None) -> None:
        places = {
            check.teacher: f"checks.{n}.teacher"
            for n, check in enumerate(spec.checks)
            if isinstance(check, JudgeCheck) and check.teacher not in (None, spec.teacher)
        } | {share.name: f"teachers.{n}.name" for n, share in enumerate(spec.teachers)}
        served = serve.name if serve is not None else None
        if serve is not None:
            self._limits(location, spec, serve.name, serve.max_model_len)
        found = [
            self._teacher(location, f"{location}.{places.get(name, 'teacher')}", spec, name)
            for name in asked_teachers(spec)
            if name != served
        ]
        known = [teacher for teacher in found if teacher is not None]
        if serve is not None:  # What is yet to be served has neither GPUs nor prices written down.
            self.faults += budget_faults(location, spec.budget, [])
        elif known:
            self.faults += budget_faults(location, spec.budget, known)

    def _teacher(self, location: str, where: str, spec: BuildSpec, name: str) -> Teacher | None:
        teacher = self._found(where, lambda session: teachers.get(session, name))
        if teacher is None or asks_nobody(spec):
            return teacher  # Whether a server is up is nothing to a build that asks none.
        if not teacher.probe.get("ok"):
            registration = teachers.registration_of(teacher, self._site.settings)
            probe = asyncio.run(teachers.probe_again(registration))
            with self._site.sessions.writing.begin() as session:
                teachers.note(teachers.get(session, name), probe)
            teachers.note(teacher, probe)
        if not teacher.probe["ok"]:
            self._fault(where, f"teacher {name!r} does not work: {teacher.probe['error']}")
            return teacher
        self._limits(location, spec, name, teacher.probe.get("context_tokens"))
        return teacher

    def _embedder(self, location: str, spec: BuildSpec, serve: ServeJob | None) -> None:
        name = embedder_of(spec)
        if name is not None and (serve is None or name != serve.name):
            where = f"{location}.selector.embedder"
            self._found(where, lambda session: teachers.get(session, name))

    def _limits(self, location: str, spec: BuildSpec, name: str, tokens: int | None) -> None:
        for field, problem in limit_faults(spec, name, tokens):
            self._fault(f"{location}.{field}", problem)

    def _train(self, spec: TrainSpec, required: bool) -> TrainSpec:
        found: dict[str, str | None] = {
            "dataset": self._dataset("train.dataset", spec.dataset, required),
            "student": self._model("train.student", spec.student),
        }
        if isinstance(spec, WithTeacher):
            found["teacher"] = self._model("train.teacher", spec.teacher)
            if spec.one_vocabulary:
                self._same_vocabulary("train.teacher", found["student"], found["teacher"])
        if isinstance(spec, ServedKL):
            teacher = self._found("train.teacher", lambda s: teachers.get(s, spec.teacher))
            for field, problem in served_faults(teacher, spec) if teacher is not None else ():
                self._fault(field, problem)
        if isinstance(spec, MiniLLM) and spec.text is not None:
            found["text"] = self._place("train.text", spec.text)
        return spec.model_copy(update=found)

    def _same_vocabulary(self, location: str, student: str | None, teacher: str | None) -> None:
        if student is None or teacher is None:
            return
        with self._site.sessions.reading() as session:
            store = self._site.store
            places = [store.locate_model(session, name, light) for name in (student, teacher)]
        difference = tokenizers.difference(*(Path(place) for place in places))
        if difference is not None:
            self._fault(location, difference)

    def _compress(
        self, spec: CompressSpec, required: bool, trained: str | None = None
    ) -> CompressSpec:
        if required and spec.model is None:
            self._fault("compress.model", "name a model to compress")
        # Without a dataset a stage has nothing to calibrate on.
        found = {
            "model": spec.model and self._model("compress.model", spec.model),
            "dataset": self._dataset("compress.dataset", spec.dataset, required),
            "evaluate": self._evaluation("compress.evaluate", spec.evaluate),
            "teacher": spec.teacher and self._model("compress.teacher", spec.teacher),
        }
        teacher = found["teacher"]
        if isinstance(teacher, str) and "/" in teacher and not Path(teacher).is_absolute():
            self._fault("compress.teacher", "a hub name: download it and name its directory")
        elif isinstance(teacher, str):
            student = found["model"] or trained
            self._same_vocabulary("compress.teacher", str(student) if student else None, teacher)
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
            self._fault("job", "name the job to report on")
            return spec
        told = self._found("job", lambda session: session.get(Job, spec.job))
        if told is None or told.kind not in REPORTED:
            self._fault("job", f"{spec.job!r} is no job of a recipe, a training or a compression")
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
        where, before = f"{location}.data", len(self.faults)
        data = self._place(where, spec.data)
        if len(self.faults) == before:
            self._questions(where, data)
        return spec.model_copy(update={"data": data})

    def _questions(self, location: str, data: str) -> None:
        """Models are measured last: a file that can't be asked is refused first."""
        file = None if Path(data).is_absolute() else self._file(location, data)
        problem = question_fault(Path(data) if file is None else self._site.store.path(file))
        if problem is not None:
            self._fault(location, problem)

    def _place(self, location: str, reference: str) -> str:
        """A file of the server's by its path, or an uploaded one's id."""
        path = Path(reference).expanduser().absolute()
        if "/" in reference and self._site.store.allow_server_paths:
            if not path.is_file():
                self._fault(location, f"there is no file {path}")
            return str(path)
        file = self._file(location, reference)
        return file.id if file is not None else reference

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
