"""What a build asks for: one spec per kind of prompt, a union on `kind`."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from prompts.parse import AnswerPattern
from prompts.record import Frozen
from prompts.template import TemplateSource, compile_template

COT_TEMPLATE = "{{ question }}\nThink step by step, then end with 'The answer is N.'"
ICL_TEMPLATE = (
    "{% for demo in demonstrations %}Input: {{ demo.input }}\nOutput: {{ demo.output }}\n\n"
    "{% endfor %}Input: {{ input }}\nOutput:"
)
IF_TEMPLATE = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"


class Sampling(Frozen):
    """How the teacher samples. Defaults are greedy: one certain answer per row."""

    temperature: float = Field(0.0, ge=0, le=2)
    """0 is greedy."""
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(256, ge=1)
    """Limit of one completion; rows that meet it are rejected as truncated."""
    seed: int | None = None
    """Sent to the server; each row adds its own number to it."""
    logprobs: int | None = Field(None, ge=0, le=1000)
    """Ask for the log-probabilities of this many tokens per position; checked against what the
    teacher allows before anything is asked."""


class Split(Frozen):
    """Shares of validation and test. A hash of the seed's input decides, stable across versions."""

    validation: float = Field(0.05, ge=0, lt=1)
    test: float = Field(0.05, ge=0, lt=1)

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Split":
        if self.validation + self.test >= 1:
            raise ValueError("validation and test together leave nothing to train on")
        return self


class _Build(Frozen):
    version: Literal[1] = 1
    teacher: str = Field(min_length=1)
    """Name of a registered teacher."""
    seeds: str = Field(min_length=1)
    """Id of an uploaded seeds file; `retort run` uploads a path and puts the id here."""
    name: str = "dataset"
    """The dataset's name; each build of a name is a new version."""
    system: TemplateSource | None = None
    """A system message before every prompt; a template too."""
    sampling: Sampling = Sampling()
    split: Split = Split()
    limit: int | None = Field(None, ge=1)
    """Ask for the first so many seeds only."""
    target: int | None = Field(None, ge=1)
    """Stop once so many rows are accepted; the rest end as not_needed."""
    deduplicate: bool = True
    """Reject a row whose prompt and completion equal an earlier row's."""
    max_in_flight: int = Field(64, ge=1, le=4096)
    """Requests under way at once, over all workers that drain this job."""
    chunk_rows: int = Field(256, ge=1, le=100_000)


class IclBuild(_Build):
    """In-context learning: demonstrations from a labelled pool stand before each query."""

    kind: Literal["icl"]
    pool: str | None = None
    """Id of an uploaded labelled pool; None takes the seeds that have an `output`, train only."""
    demonstrations: int = Field(4, ge=0, le=256)
    """How many demonstrations a prompt holds."""
    selector: Literal["random"] = "random"
    """random draws without replacement, a function of `selector_seed` and the row's id."""
    group_by: str | None = None
    """A seed's field: demonstrations come from the same group only (a task's name, say)."""
    selector_seed: int = 0
    template: TemplateSource = ICL_TEMPLATE
    """Jinja2, with the seed's fields and `demonstrations`."""
    verify: bool = False
    """Reject answers that differ from the seed's `output`."""

    @model_validator(mode="after")
    def _shows_what_it_chooses(self) -> "IclBuild":
        shows = compile_template(self.template, demonstrations=True).shows_demonstrations
        if self.demonstrations and not shows:
            raise ValueError("the template shows no demonstrations: loop over them, or ask for 0")
        return self


class CotBuild(_Build):
    """Chain of thought: rationale and answer, verified where the seed has a gold answer."""

    kind: Literal["cot"]
    template: TemplateSource = COT_TEMPLATE
    """Jinja2, with the seed's fields."""
    answer_pattern: AnswerPattern = r"(?i:answer is|####):?\s*(-?\$?-?[\d,]*\.?\d+(?:\s?/\s?\d+)?)"
    """Regular expression; its last match's first group is the answer, what stands before it the
    rationale."""
    gold_field: str = "answer"
    """The seed's field with the gold answer; a `#### N` ending is understood."""
    verify: Literal["numeric", "none"] = "numeric"
    """numeric: reject rows whose answer is not numerically equal to the gold one."""


class InstructionBuild(_Build):
    """Instruction following: the teacher's responses to given instructions."""

    kind: Literal["if"]
    template: TemplateSource = IF_TEMPLATE
    """Jinja2, with the seed's fields."""


BuildSpec = Annotated[IclBuild | CotBuild | InstructionBuild, Field(discriminator="kind")]

build_spec: TypeAdapter[IclBuild | CotBuild | InstructionBuild] = TypeAdapter(BuildSpec)
