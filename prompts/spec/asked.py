"""Whom a build may ask, and whom it asks for a row."""

from prompts.checks.judge import judges_of
from prompts.limits import teacher_of
from prompts.spec.common import Build
from prompts.spec.rescore import RescoreBuild
from prompts.spec.shots import Shots


def asked_teachers(spec: Build) -> tuple[str, ...]:
    """Names of all teachers that may be asked for a row, those that write the answers first, then
    the judges."""
    writers = [teacher.name for teacher in spec.teachers] or [spec.teacher]
    judges = [judge.teacher for judge in judges_of(spec.checks) if judge.teacher is not None]
    return tuple(dict.fromkeys(writers + judges))


def asks_nobody(spec: Build) -> bool:
    """Whether the teacher's weights are loaded by the workers, so that no server is asked."""
    return isinstance(spec, RescoreBuild) and spec.in_process


def embedder_of(spec: Build) -> str | None:
    """The registered server that a build asks for vectors, if it needs any."""
    return spec.embedder if isinstance(spec, Shots) else None


def writer_of(spec: Build, row: str) -> str:
    """The teacher that writes a row's answers, as long as it answers."""
    if spec.teachers and spec.teachers_mode == "weighted":
        return teacher_of(spec.teachers, row)
    return spec.teacher
