"""How a student is trained: one spec per method, a union on `method`."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from prompts.spec import IclBuild
from prompts.template import TemplateSource, compile_template
from trainer.spec.divergence import DivergenceSpec, ForwardDivergence, JensenShannon
from trainer.spec.features import FeatureSpec
from trainer.spec.rollouts import VllmRollouts, check_rollouts
from trainer.spec.training import Training, WithTeacher


class RationaleThenAnswer(Training):
    """Chain-of-thought distillation: cross-entropy on rationale and answer as one completion.

    Needs a dataset with CoT rows.
    """

    method: Literal["rationale_then_answer"]


class SequenceLevel(Training):
    """Sequence-level distillation: cross-entropy on a teacher's completions (arXiv:1606.07947).

    On instruction rows this is instruction tuning.
    """

    method: Literal["sequence_level"]


class StepByStep(Training):
    """Two tasks on one input, the label and the rationale (arXiv:2305.02301): the loss is
    label_share * label + (1 - label_share) * rationale, each a mean over its own tokens. Asked
    without a prefix, the student gives the label alone.

    Needs a dataset with CoT rows.
    """

    method: Literal["step_by_step"]
    label_share: float = Field(0.5, ge=0, le=1)
    label_prefix: str = ""
    """Stands before the last user message where the label is asked for."""
    label_template: TemplateSource = "{{ answer }}"
    """Jinja2 template of what is said where the label is asked for. Words in which the student
    answers already cost it fewer rows than the answer alone."""
    rationale_prefix: str = "[rationale] "
    """Stands before the last user message where the rationale is asked for."""

    @field_validator("label_template")
    @classmethod
    def _says_the_answer(cls, template: str) -> str:
        if compile_template(template).fields != {"answer"}:
            raise ValueError("label_template must say {{ answer }}, and no other field")
        return template

    @model_validator(mode="after")
    def _tasks_differ(self) -> "StepByStep":
        both = 0 < self.label_share < 1
        if both and self.label_prefix == self.rationale_prefix:
            raise ValueError("label_prefix and rationale_prefix must differ: they name the task")
        return self


class ForwardKL(WithTeacher):
    """Standard distillation: KL(teacher || student) per completion token, teacher in process."""

    method: Literal["forward_kl"]
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions; the loss is scaled by its square."""
    cross_entropy_weight: float = Field(0.0, ge=0, le=1)
    """Share w of the hard loss: (1 - w) * KL + w * CE."""


class OffPolicy(WithTeacher):
    """Distillation on the dataset's rows by any divergence, by features, or by both."""

    method: Literal["kd"]
    unserved: ClassVar[str] = "use served_kl; features need its hidden states"
    divergence: DivergenceSpec | None = ForwardDivergence()
    """None compares no outputs."""
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions; the loss is scaled by its square."""
    cross_entropy_weight: float = Field(0.0, ge=0, le=1)
    """Share w of the hard loss: (1 - w) * divergence + w * CE."""
    features: tuple[FeatureSpec, ...] = ()
    """Losses on hidden states, added to the others."""

    @model_validator(mode="after")
    def _compares_something(self) -> "OffPolicy":
        if self.divergence is None and not self.features:
            raise ValueError("without a divergence, features are needed")
        return self


class StoredKL(Training):
    """Distillation from a dataset's stored teacher signal: no teacher in the process.

    Top-k signal: any divergence over the k tokens and the rest as one more. Sampled signal: the
    forward KL's gradient alone, unbiased (arXiv:2503.16870). At the recorded temperature.
    """

    method: Literal["stored_kl"]
    divergence: DivergenceSpec = ForwardDivergence()
    kd_temperature: float = Field(1.0, gt=0)
    """Must be the one that the signal was recorded at."""
    cross_entropy_weight: float = Field(0.0, ge=0, le=1)
    """Share w of the hard loss: (1 - w) * divergence + w * CE."""


class ServedKL(Training):
    """Distillation towards a teacher that vLLM serves in another process: any divergence over its
    k likeliest tokens and the rest as one more, at temperature 1; on the dataset's rows, or on the
    student's own answers."""

    method: Literal["served_kl"]
    teacher: str = Field(min_length=1)
    """Name of a registered teacher; without the service, the URL of its API, ending in /v1."""
    served_model: str | None = None
    """What the server calls it; with the service, the registration says."""
    api_key_env: str | None = None
    """Variable of the trainer's process that holds its key; with the service, the registration
    says."""
    top_k: int = Field(20, ge=1)
    """k; more than 20 needs a server with --max-logprobs."""
    in_flight: int = Field(16, ge=1)
    """Rows asked about at once."""
    divergence: DivergenceSpec = ForwardDivergence()
    kd_temperature: float = Field(1.0, gt=0)
    """Must be 1: that of a server's log-probs."""
    cross_entropy_weight: float = Field(0.0, ge=0, le=1)
    """Share w of the hard loss: (1 - w) * divergence + w * CE."""
    student_share: float = Field(0.0, ge=0, le=1)
    """Lambda: the share of steps that learn from the student's own answers."""
    sampling_temperature: float = Field(1.0, gt=0)
    """Of the student's own answers."""
    samples: int = Field(1, ge=1)
    """Answers to each prompt."""
    max_new_tokens: int = Field(256, ge=1)
    vllm: VllmRollouts | None = None
    """None draws the answers in the trainer's process."""

    @model_validator(mode="after")
    def _is_sound(self) -> "ServedKL":
        if self.kd_temperature != 1:
            raise ValueError(
                "kd_temperature: a server gives log-probs at temperature 1, and what lies outside "
                "the k can't be re-tempered: set it to 1, or take a method with the teacher in "
                "the process"
            )
        if self.student_share > 0 and self.cross_entropy_weight > 0:
            raise ValueError(
                "cross_entropy_weight: with a student_share it would teach the student its own "
                "answers: leave one of the two out"
            )
        check_rollouts(self)
        return self


class OnPolicy(WithTeacher):
    """Generalized knowledge distillation (arXiv:2306.13649): with probability `student_share` a
    step learns from the student's own answers to its rows' prompts, else from the rows."""

    method: Literal["gkd"]
    unserved: ClassVar[str] = "use served_kl with a student_share"
    student_share: float = Field(1.0, ge=0, le=1)
    """Lambda."""
    divergence: DivergenceSpec = JensenShannon(kind="jsd", beta=0.5)
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions; the loss is scaled by its square."""
    sampling_temperature: float = Field(1.0, gt=0)
    """Of the student's own answers."""
    samples: int = Field(1, ge=1)
    """Answers to each prompt."""
    max_new_tokens: int = Field(256, ge=1)
    vllm: VllmRollouts | None = None
    """None draws the answers in the trainer's process."""

    @model_validator(mode="after")
    def _weights_can_follow(self) -> "OnPolicy":
        check_rollouts(self)
        return self


class MiniLLM(WithTeacher):
    """Reverse KL of whole answers by policy gradient (arXiv:2306.08543). Start from a student
    after plain fine-tuning."""

    method: Literal["minillm"]
    unserved: ClassVar[str] = (
        "the exact single-step part and the teacher's share of the drawing need its whole "
        "distribution at every token"
    )
    max_new_tokens: int = Field(256, ge=1)
    samples: int = Field(1, ge=1)
    """Answers to each prompt."""
    teacher_mix: float = Field(0.2, ge=0, lt=1)
    """Answers are drawn from teacher_mix * teacher + (1 - teacher_mix) * student; 0 ablates it."""
    single_step: bool = True
    """The exact gradient of each position's own reverse KL; without it that, too, is sampled."""
    length_normalization: bool = True
    """Returns are means over the tokens that remain, not sums."""
    discount: float = Field(0.95, gt=0, le=1)
    """Gamma of the returns, per token ahead."""
    clip: float = Field(0.2, gt=0)
    """The policy's ratio is held within 1 - clip .. 1 + clip."""
    text: str | None = None
    """A file of pre-training text, one document a line (JSONL with `text`, or plain); None leaves
    its loss out."""
    text_weight: float = Field(1.0, gt=0)
    """Of the cross-entropy on `text`."""


class _InContext(WithTeacher):
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions; the loss is scaled by its square."""
    hard_weight: float = Field(0.5, ge=0, le=1)
    """Share w of the hard in-context loss: (1 - w) * KL + w * CE on the answers."""
    language_model_weight: float = Field(0.5, ge=0)
    """Of the cross-entropy on the prompts themselves, demonstrations and query; 0 leaves it
    out."""


class MetaIct(_InContext):
    """In-context learning distillation, meta in-context tuning (arXiv:2212.10670): student and
    teacher both see the demonstrations, tasks are mixed, and the ability transfers.

    Needs a dataset with ICL rows that hold demonstrations.
    """

    method: Literal["meta_ict"]


class MultitaskIct(_InContext):
    """In-context learning distillation, multitask in-context tuning (arXiv:2212.10670): the
    teacher sees the demonstrations, the student answers without them.

    Needs a dataset with ICL rows that hold demonstrations.
    """

    method: Literal["multitask_ict"]
    query_template: str = IclBuild.model_fields["template"].default
    """Jinja2 template that built the prompts: rendered without demonstrations, it must give the
    end of each."""


class UniversalLogit(WithTeacher):
    """Universal logit distillation (arXiv:2402.12030): a teacher with another tokenizer, compared
    by sorted probabilities where both tokenizers begin a token at the same character."""

    one_vocabulary: ClassVar[bool] = False
    method: Literal["uld"]
    unserved: ClassVar[str] = (
        "probabilities are sorted over the whole vocabulary; use sequence_level"
    )
    weight: float = Field(1.5, gt=0)
    """Of the distance; it is added to the cross-entropy."""
    kd_temperature: float = Field(1.0, gt=0)
    """Softens both distributions."""


TrainSpec = Annotated[
    RationaleThenAnswer
    | SequenceLevel
    | StepByStep
    | ForwardKL
    | OffPolicy
    | StoredKL
    | ServedKL
    | OnPolicy
    | MiniLLM
    | MetaIct
    | MultitaskIct
    | UniversalLogit,
    Field(discriminator="method"),
]
