"""Whom a build may ask."""

from prompts.spec.common import Build


def asked_teachers(spec: Build) -> tuple[str, ...]:
    """Names of all teachers that may be asked for a row, those that write the answers first."""
    writers = [teacher.name for teacher in spec.teachers] or [spec.teacher]
    return tuple(dict.fromkeys(writers))
