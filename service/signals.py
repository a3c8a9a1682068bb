"""Whether registered teachers can give the signal that a build asks for."""

from sqlalchemy.orm import Session

from prompts.spec import BuildSpec, SignalRefusedError, check_signal
from service.spec import ServeJob
from service.tables import Teacher


def signal_fault(session: Session, spec: BuildSpec, serve: ServeJob | None) -> str | None:
    """What is wrong with `spec.signal`, for a person to read; None if it can be given.

    Teachers that are not registered are passed over: that is another fault.
    """
    if spec.signal is None:
        return None
    if spec.incremental:
        return (
            "an incremental build takes over rows of the version before, which may have no signal:"
            " leave out `signal`, or build anew"
        )
    names = [teacher.name for teacher in spec.teachers] or [spec.teacher]
    known = [found for name in names if (found := session.get(Teacher, name)) is not None]
    limits = {teacher.name: teacher.probe.get("max_logprobs") for teacher in known}
    if serve is not None:
        limits = {serve.name: serve.max_logprobs}
    tokenizers = {teacher.name: teacher.probe.get("tokenizer_sha256") for teacher in known}
    try:
        for name in limits or {spec.teacher: None}:
            check_signal(spec.signal, name, limits.get(name), tokenizers)
    except SignalRefusedError as error:
        return str(error)
    return None
