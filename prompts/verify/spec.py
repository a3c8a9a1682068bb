"""How answers are compared with gold ones, and with each other: a union on `kind`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from prompts.record import Frozen


class NoVerifier(Frozen):
    """Nothing is compared with gold; votes go by the answer's words."""

    kind: Literal["none"] = "none"


class NumericVerifier(Frozen):
    """The same number, exactly: `1/2` is `0.5`, `1,000` is `1000`."""

    kind: Literal["numeric"] = "numeric"


class MathVerifier(Frozen):
    """The same expression (math-verify; LaTeX or plain), in a process that is killed if it
    hangs."""

    kind: Literal["math"] = "math"
    timeout_s: float = Field(5.0, gt=0, le=60)
    """Of one comparison; the row is rejected as verifier_failed beyond it."""


class ChoiceVerifier(Frozen):
    """The same one of a few choices: `(b)`, `B.` and `B: because` are all `B`."""

    kind: Literal["choice"] = "choice"
    choices: tuple[str, ...] = Field(("A", "B", "C", "D", "E"), min_length=2)

    @field_validator("choices")
    @classmethod
    def _are_told_apart(cls, choices: tuple[str, ...]) -> tuple[str, ...]:
        folded = [choice.casefold().strip() for choice in choices]
        if len(set(folded)) < len(folded) or not all(folded):
            raise ValueError("choices must differ, also without case, and none may be empty")
        return choices


class ExactVerifier(Frozen):
    """The same words, white space aside."""

    kind: Literal["exact"] = "exact"
    ignore_case: bool = False


class RegexVerifier(Frozen):
    """The gold field holds a regular expression that must match the whole answer."""

    kind: Literal["regex"] = "regex"
    ignore_case: bool = False


class JsonVerifier(Frozen):
    """The same JSON value, whatever the order of keys and the white space."""

    kind: Literal["json"] = "json"


class PythonVerifier(Frozen):
    """A function of your own: (answer, gold) -> bool. It runs inside the worker, so the worker's
    owner must allow it (RETORT_ALLOW_PYTHON_VERIFIERS)."""

    kind: Literal["python"] = "python"
    function: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """`package.module:name`, importable by the worker."""


def _from_word(value: Any) -> Any:
    if isinstance(value, bool):
        return {"kind": "exact" if value else "none"}
    return {"kind": value} if isinstance(value, str) else value


VerifierSpec = Annotated[
    NoVerifier
    | NumericVerifier
    | MathVerifier
    | ChoiceVerifier
    | ExactVerifier
    | RegexVerifier
    | JsonVerifier
    | PythonVerifier,
    Field(discriminator="kind"),
    BeforeValidator(_from_word),
]
"""A kind alone may stand for its defaults: `verify: numeric`; true is exact, false none."""
