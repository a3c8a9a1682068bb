"""Trainings that ask a registered teacher themselves: what would make them fail."""

from collections.abc import Iterator

from service.tables import Teacher
from trainer.spec import ServedKL


def served_faults(teacher: Teacher, spec: ServedKL) -> Iterator[tuple[str, str]]:
    """Field and problem."""
    if teacher.api_key_sealed is not None:
        yield (
            "train.teacher",
            f"the key of {teacher.name!r} is stored sealed, and a training reads it from a "
            "variable: register the teacher with api_key_env",
        )
    most = teacher.probe.get("max_logprobs")
    if most is not None and spec.top_k > most:
        yield "train.top_k", f"{teacher.name!r} gives {most} log-probs a token at most"
