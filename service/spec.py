"""What a user can ask for: one job spec, a union on `kind`, composed of the rooms' own specs."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from prompts.record import Frozen
from prompts.spec import BuildSpec
from trainer.spec import PACKED, CompressSpec, EvalSpec, TrainSpec


class BuildJob(Frozen):
    """Ask a teacher, publish a dataset."""

    kind: Literal["build"]
    build: BuildSpec


class TrainJob(Frozen):
    """Train a student on a dataset, publish a model."""

    kind: Literal["train"]
    train: TrainSpec
    evaluate: EvalSpec | None = None


class CompressJob(Frozen):
    """Prune, factorize, quantize; each stage measured, gated and published as a model."""

    kind: Literal["compress"]
    compress: CompressSpec


class ServeJob(Frozen):
    """Serve a model directory with vLLM and register it as a teacher, until cancelled."""

    kind: Literal["serve"]
    model: str = Field(min_length=1)
    """Model id, directory or hub name."""
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The name that builds call the teacher by."""
    max_model_len: int | None = Field(None, ge=16)
    """Context in tokens; None takes the model's own."""
    max_logprobs: int = Field(20, ge=0)
    port: int | None = Field(None, ge=1, le=65535)
    """None takes a free one."""


class ReportJob(Frozen):
    """Draw the report of a finished chain."""

    kind: Literal["report"]
    job: str | None = None
    """The recipe job whose children the report tells of; in a recipe, its own. Or a training or a
    compression: the report tells of it and of the jobs that made what it started from."""
    evaluate: EvalSpec | None = None
    """Measures teacher and student base too, so that the table has its two ends."""


class BatchJob(Frozen):
    """Ask registered teachers every request of a file, each as it stands; publish the answers."""

    kind: Literal["batch"]
    input: str = Field(min_length=1)
    """Id of an uploaded file of OpenAI batch requests: custom_id, method, url and body a line; its
    `model` is a teacher's name."""
    name: str = Field("batch", min_length=1, max_length=200)
    window_s: int = Field(86400, ge=1)
    """What isn't answered so long after the submission ends as expired."""
    max_in_flight: int = Field(64, ge=1, le=4096)
    """Most requests under way at once."""
    metadata: dict[str, str] = Field(default_factory=dict, max_length=16)
    """Notes of whoever submits; given back as they are."""


class RecipeJob(Frozen):
    """A chain: serve -> build -> train -> compress -> report, each a job with this one as parent.

    An input left out of a part is the output of the part before it.
    """

    kind: Literal["recipe"]
    version: Literal[1] = 1
    name: str = "recipe"
    serve: ServeJob | None = None
    """A teacher to serve for the build only; without it the build names a registered one."""
    build: BuildSpec | None = None
    train: TrainSpec | None = None
    compress: CompressSpec | None = None
    evaluate: EvalSpec | None = None
    """How every model of the chain is measured."""
    report: bool = True

    @model_validator(mode="after")
    def _is_a_chain(self) -> "RecipeJob":
        if self.build is None and self.train is None and self.compress is None:
            raise ValueError("a recipe needs at least one of build, train and compress")
        if self.train is not None and self.train.dataset is None and self.build is None:
            raise ValueError("train needs a dataset: name one, or add a build")
        if self.compress is not None and self.compress.model is None and self.train is None:
            raise ValueError("compress needs a model: name one, or add a train")
        packed = self.train is not None and self.train.quantize is not None
        if packed and self.compress is not None and self.compress.model is None:
            raise ValueError(f"compress: {PACKED}")
        if self.build is not None and self.serve and self.build.teacher != self.serve.name:
            raise ValueError("build.teacher must be the name that serve registers")
        return self


JobSpec = Annotated[
    BuildJob | TrainJob | CompressJob | ServeJob | ReportJob | BatchJob | RecipeJob,
    Field(discriminator="kind"),
]

job_spec: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)
