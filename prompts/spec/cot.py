"""What a chain-of-thought build asks for."""

from typing import Any, Literal

from pydantic import Field, model_validator

from prompts.fields import FieldError
from prompts.parse import AnswerPattern
from prompts.record import Frozen
from prompts.spec.shots import Shots
from prompts.template import TemplateSource, compile_template
from prompts.verify.spec import NumericVerifier, VerifierSpec

COT_TEMPLATE = (
    "{% for demo in demonstrations %}{{ demo.question }}\n{{ demo.rationale }}"
    " The answer is {{ demo.answer }}.\n\n{% endfor %}"
    "{{ question }}\nThink step by step, then end with 'The answer is N.'"
)
HINT_TEMPLATE = (
    "(Hint: the answer is {{ gold }}. Explain step by step how to reach it, as if you had found it"
    " yourself, without a word about the hint.)"
)
NUMBER_PATTERN = r"(?i:answer is|####):?\s*(-?\$?-?[\d,]*\.?\d+(?:\s?/\s?\d+)?)"
TEXT_PATTERN = (
    r"(?|(?i:answer is|####):?\s*([^\n]*?)\.?\s*(?:\n|$)|\\boxed\{((?:[^{}]|\{[^{}]*\})*)\})"
)


class Rationalise(Frozen):
    """Rationalisation (STaR, arXiv:2203.14465): a row whose samples are all wrong is asked once
    more with the gold answer as a hint. If the new rationale reaches that answer it is kept, with
    the prompt as it was without the hint."""

    hint: TemplateSource = HINT_TEMPLATE
    """Jinja2, with the seed's fields and `gold`; stands after the prompt."""

    @model_validator(mode="after")
    def _gives_the_answer(self) -> "Rationalise":
        if "gold" not in compile_template(self.hint).fields:
            raise ValueError("the hint doesn't show the gold answer: write {{ gold }} somewhere")
        return self


class CotBuild(Shots):
    """Chain of thought: rationale and answer, verified where the seed has a gold answer."""

    kind: Literal["cot"]
    template: TemplateSource = COT_TEMPLATE
    """Jinja2, with the seed's fields and `demonstrations`."""
    answer_pattern: AnswerPattern = NUMBER_PATTERN
    """Regular expression; its last match's first group is the answer, what stands before it the
    rationale. Left out, it fits the verifier: a number for numeric, else the rest of the line after
    'answer is' or what stands in \\boxed{}."""
    gold_field: str = "answer"
    """The seed's field with the gold answer; a `#### N` ending is understood."""
    verify: VerifierSpec = NumericVerifier()
    """How answers are compared with the gold one, and samples with each other."""
    samples: int = Field(1, ge=1, le=256)
    """Samples of each row. With a gold answer the first right one is kept (rejection sampling);
    without, the first of those whose answer most samples agree on (self-consistency,
    arXiv:2203.11171). The share that agrees is the row's `confidence`."""
    min_agreement: float | None = Field(None, gt=0, le=1)
    """Reject rows on whose answer a smaller share of the samples agrees."""
    rationalise: Rationalise | None = None
    """Ask again, with a hint, where every sample is wrong."""

    @property
    def calls_a_row(self) -> int:
        """All samples are asked side by side."""
        return self.samples + super().calls_a_row - 1

    @model_validator(mode="before")
    @classmethod
    def _pattern_fits_the_verifier(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "answer_pattern" in given or "verify" not in given:
            return given
        verify = given["verify"]
        kind = verify.get("kind") if isinstance(verify, dict) else verify
        if kind in ("numeric", "none") or isinstance(verify, NumericVerifier):
            return given
        return {**given, "answer_pattern": TEXT_PATTERN}

    @model_validator(mode="after")
    def _samples_can_differ(self) -> "CotBuild":
        if self.samples > 1 and self.sampling.temperature == 0:
            raise FieldError("samples", "they would all be the same at sampling.temperature 0")
        if self.min_agreement is not None and self.samples == 1:
            raise FieldError("min_agreement", "a single sample agrees with nobody; ask for samples")
        if self.rationalise is not None and self.verify.kind == "none":
            raise FieldError("rationalise", "with verify none no row is known to be wrong")
        return self
