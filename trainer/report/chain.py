"""The facts of one finished chain: everything a report says, and nothing that a run didn't give.

Free of torch. Whoever runs the chain fills it in (the worker from SQL, `python -m trainer run` from
its own directories). What was not measured is None, and `why` says why: a report shows a dash and
the reason, never a guess.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from prompts.record import Frozen
from trainer.compress.report import StageReport
from trainer.measurement import Measurement


class Recipe(Frozen):
    """What was asked for."""

    name: str
    text: str = ""
    """YAML, as the user wrote it or dumped from `spec`."""
    spec: dict[str, Any] = Field(default_factory=dict)
    """Validated, defaults filled in."""


class Part(Frozen):
    """One job of the chain."""

    id: str
    kind: str
    """serve, build, train, compress, report."""
    state: str
    """queued, running, succeeded, failed, cancelled."""
    reason: str | None = None
    """One word why it ended so: gate, empty, ..."""
    started_at: datetime | None = None
    """UTC."""
    finished_at: datetime | None = None
    seconds: float | None = None
    """Wall time; None takes the difference of the two times above."""
    attempts: int = 1


class DatasetFacts(Frozen):
    """What the dataset's manifest and its build say."""

    id: str
    name: str
    version: int | None = None
    kind: str | None = None
    """icl, cot or if."""
    accepted: int
    rejected: dict[str, int] = Field(default_factory=dict)
    """Rows by `prompts.record.Reason`."""
    not_needed: dict[str, int] = Field(default_factory=dict)
    """Rows by target, budget, cancelled."""
    splits: dict[str, int] = Field(default_factory=dict)
    """Accepted rows of train, validation, test."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    requests: int | None = None
    """Completions asked of the teacher, rejected rows included."""
    teacher: str | None = None
    teacher_revision: str | None = None
    teacher_seconds: float | None = None
    """Wall time in which the teacher was being asked."""
    why: dict[str, str] = Field(default_factory=dict)
    """Field of this model -> why it is None."""


class Step(Frozen):
    """One optimizer step, as the trainer's `step` event told it."""

    step: int
    loss: float | None
    """Nats per kept token; None where it was not a finite number."""
    learning_rate: float | None = None
    tokens_per_s: float | None = None


class Validation(Frozen):
    """One look at the validation split."""

    step: int
    loss: float | None


class SampledRow(Frozen):
    """A held-out prompt and two answers to it."""

    id: str
    prompt: str
    reference: str
    """The dataset's answer, which is the teacher's."""
    student: str
    """The student's, greedily."""
    ended: bool = True
    """False where it met the limit of new tokens."""


class Samples(Frozen):
    """What the student said at one look at the validation split."""

    step: int
    rows: tuple[SampledRow, ...]


class Training(Frozen):
    """How the student learned."""

    method: str
    """rationale_then_answer, sequence_level, forward_kl."""
    job: str | None = None
    rows: int | None = None
    """Train rows used."""
    left_out: int | None = None
    """Rows longer than max_length."""
    cut: int | None = None
    """Rows whose completion met its token limit."""
    unsuited: int | None = None
    """Rows that the method can't learn from."""
    seed: int | None = None
    threads: int | None = None
    steps: tuple[Step, ...] = ()
    validation: tuple[Validation, ...] = ()
    samples: tuple[Samples, ...] = ()
    """In order of steps, the same prompts each time."""


class ModelRow(Frozen):
    """One model of the chain and what is known of it."""

    id: str
    """Artifact id, directory or hub name."""
    label: str
    """For a person: 'teacher', 'student base', 'student', 'svd', ..."""
    role: Literal["teacher", "base", "student", "stage"]
    source: str | None = None
    """`id` of the row it was made from; None for teacher and base."""
    measurement: Measurement | None = None
    """None for a stage takes its report's `after.measurement`."""
    stage: StageReport | None = None
    """The stage's report.json as it stands."""
    seconds: float | None = None
    """Wall time of the step that made it (training, or the stage with its heal); None for a stage
    takes its report's."""
    teacher_tokens: int | None = None
    """Teacher tokens that step was paid for with, prompt and completion."""
    why: dict[str, str] = Field(default_factory=dict)
    """'measurement', 'stage', 'seconds' or 'teacher_tokens' -> why it is None."""


class Artifact(Frozen):
    """A node of the lineage."""

    id: str
    kind: str
    """seeds, dataset, model, evaluation, report, recipe, ..."""
    name: str
    version: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    inputs: tuple[str, ...] = ()
    """Ids of the artifacts it was made from."""


class Machine(Frozen):
    """Where it ran. Speeds hold for this machine only."""

    cpu: str | None = None
    cores: int | None = None
    memory_bytes: int | None = None
    gpu: str | None = None
    """None: no GPU was used."""
    system: str | None = None


class Chain(Frozen):
    """A finished chain, from recipe to bytes."""

    version: Literal[1] = 1
    id: str
    """The recipe job's id, or the directory's name."""
    recipe: Recipe
    created_at: datetime | None = None
    """When the facts were gathered, UTC; None keeps the page free of it."""
    fixture: bool = False
    """True for made-up figures: the page says so in large letters."""
    distilled: tuple[str, ...] = ()
    """Skills (keys of `Measurement.skills`) that the dataset teaches: the headline speaks of the
    first. Empty: the headline speaks of the mean over skills."""
    parts: tuple[Part, ...] = ()
    dataset: DatasetFacts | None = None
    training: Training | None = None
    models: tuple[ModelRow, ...] = ()
    """In order: teacher, base, student, stages as they ran."""
    lineage: tuple[Artifact, ...] = ()
    machine: Machine = Machine()
    versions: dict[str, str] = Field(default_factory=dict)
    """Package -> version: retort-distill, torch, transformers, vllm, python, ..."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Whatever else bears on the figures."""
    notes: tuple[str, ...] = ()
    """What the runner wants to be known: resumed after a crash, a stage skipped, ..."""
    why: dict[str, str] = Field(default_factory=dict)
    """'dataset', 'training', 'lineage', ... -> why it is missing."""
