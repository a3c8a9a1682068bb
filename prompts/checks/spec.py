"""What a completion must pass beside what its kind always asks of it: a union on `kind`."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from prompts.fields import FieldError
from prompts.patterns import compile_pattern
from prompts.record import Frozen
from prompts.schemas import check_schema
from prompts.template import TemplateSource, compile_template

JUDGE_TEMPLATE = (
    "Judge the answer to a request by this rubric.\n\nRubric:\n{{ rubric }}\n\n"
    "Request:\n{{ prompt }}\n\nAnswer:\n{{ completion }}\n\n"
    "{% if gold %}Reference answer:\n{{ gold }}\n\n{% endif %}"
    'Reply with one JSON object: {"reason": a sentence, "score": a number from {{ lowest }} to'
    " {{ highest }}}."
)


def _check_pattern(source: str) -> str:
    compile_pattern(source)
    return source


Pattern = Annotated[str, AfterValidator(_check_pattern)]
Words = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class LengthCheck(Frozen):
    """How long a completion may be: characters of its text, tokens as the server counted them
    (a reasoning model's thinking included)."""

    kind: Literal["length"]
    min_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    min_characters: int | None = Field(None, ge=1)
    max_characters: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _has_room(self) -> "LengthCheck":
        bounds = (
            ("tokens", self.min_tokens, self.max_tokens),
            ("characters", self.min_characters, self.max_characters),
        )
        if all(low is None and high is None for _, low, high in bounds):
            raise ValueError(
                "length needs min_tokens, max_tokens, min_characters or max_characters"
            )
        for unit, low, high in bounds:
            if low is not None and high is not None and low > high:
                raise FieldError(
                    f"min_{unit}", f"{low} is above max_{unit} {high}: no row could pass"
                )
        return self


class LanguageCheck(Frozen):
    """The completion is in one of these languages, by py3langid."""

    kind: Literal["language"]
    languages: tuple[Annotated[str, StringConstraints(pattern="^[a-z]{2,3}$")], ...] = Field(
        min_length=1
    )
    """ISO 639-1 codes."""
    min_probability: float = Field(0.5, ge=0, le=1)
    """That the most likely language must have."""


class RegexCheck(Frozen):
    """Regular expressions, searched anywhere in the completion, in bounded time."""

    kind: Literal["regex"]
    must: tuple[Pattern, ...] = ()
    must_not: tuple[Pattern, ...] = ()

    @model_validator(mode="after")
    def _looks_for_something(self) -> "RegexCheck":
        if not self.must and not self.must_not:
            raise ValueError("regex needs a pattern in must or must_not")
        return self


class JsonSchemaCheck(Frozen):
    """The completion is JSON that a schema (draft 2020-12) takes; a ```json fence may be around."""

    kind: Literal["json_schema"]
    json_schema: Annotated[dict[str, Any], AfterValidator(check_schema)]
    structured: bool = False
    """Tell the server the schema, so that it lets the teacher write nothing else."""


class RefusalCheck(Frozen):
    """Refusals in words of your own, beside those that are always looked for."""

    kind: Literal["refusal"]
    phrases: tuple[Words, ...] = Field(min_length=1)
    anywhere: bool = False
    """Look for them in the whole completion, not at its beginning alone."""


Entity = Literal[
    "EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "CRYPTO", "US_SSN"
]


class PersonalDataCheck(Frozen):
    """Personal data in the completion, by presidio's pattern recognizers."""

    kind: Literal["personal_data"]
    action: Literal["off", "flag", "reject"] = "reject"
    """flag: the row is accepted, with `personal_data` among its `flags`."""
    entities: tuple[Entity, ...] = Field(
        ("EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "IP_ADDRESS", "US_SSN"),
        min_length=1,
    )
    min_score: float = Field(0.4, ge=0, le=1)
    """Of presidio's confidence."""


class JudgeCheck(Frozen):
    """Another look by a teacher: a rubric, a score, a threshold. Score and reason stay with the
    row. Asked last, and only about rows that passed everything else."""

    kind: Literal["judge"]
    rubric: Words
    threshold: float = Field(allow_inf_nan=False)
    """The lowest score that passes."""
    teacher: str | None = Field(None, min_length=1)
    """Name of a registered teacher; None: the row's own."""
    lowest: float = Field(1, allow_inf_nan=False)
    highest: float = Field(10, allow_inf_nan=False)
    """The scale; a score outside of it counts as none."""
    template: TemplateSource = JUDGE_TEMPLATE
    """Jinja2, with `rubric`, `prompt`, `completion`, `reasoning`, `gold`, `lowest`, `highest` and
    the seed's fields under `seed`."""
    max_tokens: int = Field(512, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    structured: bool = True
    """Have the server keep the reply to JSON with `reason` and `score`."""

    @model_validator(mode="after")
    def _can_pass_and_fail(self) -> "JudgeCheck":
        if not self.lowest < self.highest:
            raise FieldError(
                "highest", f"the scale from {self.lowest:g} to {self.highest:g} is empty"
            )
        if not self.lowest <= self.threshold <= self.highest:
            raise FieldError(
                "threshold",
                f"threshold {self.threshold:g} is outside of the scale from {self.lowest:g} to"
                f" {self.highest:g}",
            )
        if "completion" not in compile_template(self.template).fields:
            raise FieldError(
                "template", "the template shows no completion: write {{ completion }} somewhere"
            )
        return self


CheckSpec = Annotated[
    LengthCheck
    | LanguageCheck
    | RegexCheck
    | JsonSchemaCheck
    | RefusalCheck
    | PersonalDataCheck
    | JudgeCheck,
    Field(discriminator="kind"),
]
