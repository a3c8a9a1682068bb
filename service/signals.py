"""Whether registered teachers can give the signal that a build asks for."""

from pathlib import Path

from sqlalchemy.orm import Session

from prompts.signal import template_sha256, tokenizer_sha256, vocabulary_size
from prompts.spec import BuildSpec, RescoreBuild, Shots, SignalRefusedError, check_signal
from prompts.spec.asked import asks_nobody
from service.problems import Problem
from service.shared import Directory
from service.spec import ServeJob
from service.store import Store, light
from service.tables import Teacher

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


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
    if asks_nobody(spec):
        return None
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


def in_process_fault(
    store: Store, session: Session, spec: BuildSpec, serve: ServeJob | None
) -> tuple[str, str] | None:
    """Why the workers couldn't load the teacher themselves, where a build asks for that: the field
    and what is wrong; None if they can, or need not."""
    if not asks_nobody(spec):
        return None
    if serve is not None:
        words = (
            "the recipe serves a teacher, and a build with in_process asks none: leave out serve"
        )
        return "in_process", words
    teacher = session.get(Teacher, spec.teacher)
    model = teacher.model if teacher is not None else None
    directory = _directory(store, session, model) if model else None
    if directory is None:
        return None  # `tokenizer_fault` says it, or that the teacher is unknown.
    if not _holds_weights(store, directory):
        return "in_process", f"{directory} holds no weights ({' or '.join(WEIGHTS)}) to load"
    size, top_k = vocabulary_size(directory), spec.signal and spec.signal.top_k
    if size is not None and (top_k or 0) > size:
        return "signal", f"top_k is {top_k}, teacher {spec.teacher!r} knows {size} tokens"
    return None


def tokenizer_fault(
    store: Store, session: Session, spec: BuildSpec, serve: ServeJob | None
) -> str | None:
    """Why the workers couldn't write rows as the teacher's tokens, where a build needs that; None
    if they can, or need not."""
    counts = isinstance(spec, Shots) and spec.demonstration_tokens is not None
    writes_ids = isinstance(spec, RescoreBuild) or not spec.takes_seeds
    teacher = session.get(Teacher, spec.teacher)
    if not (counts or writes_ids) or (serve is None and teacher is None):
        return None
    model = serve.model if serve is not None else teacher and teacher.model
    directory = _directory(store, session, model) if model else None
    if directory is not None and tokenizer_sha256(directory) and template_sha256(directory):
        return None
    if counts:
        return (
            "demonstration_tokens is counted with tokenizer.json and chat template of teacher"
            f" {spec.teacher!r}, which are not at hand: register it with its directory as `model`,"
            " or leave demonstration_tokens out"
        )
    kind = spec.kind if spec.takes_seeds else "magpie"
    return (
        f"a {kind} build writes token ids itself, and tokenizer.json and chat template of "
        f"teacher {spec.teacher!r} are not at hand: register it with its directory as `model`"
    )


def _holds_weights(store: Store, directory: Path) -> bool:
    """Asked of the bucket, where it lies in one: weights are not brought here to be seen."""
    shared = store.shared if directory.is_relative_to(store.root) else Directory()
    names = [found.path for found in shared.found(directory) if found.path.parent == directory]
    return any(name.match(pattern) for name in names for pattern in WEIGHTS)


def _directory(store: Store, session: Session, model: str) -> Path | None:
    try:
        return Path(store.locate_model(session, model, light))
    except Problem:
        return None
