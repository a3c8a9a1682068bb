"""Where a build ends before its seeds do: budget, smoke gate, several teachers."""

from hashlib import sha256

from pydantic import Field, model_validator

from prompts.fields import FieldError
from prompts.record import Frozen


class Budget(Frozen):
    """What a build may spend; whichever is spent first ends the asking. Rows not asked by then end
    as not_needed, requests under way are still taken in."""

    requests: int | None = Field(None, ge=1)
    prompt_tokens: int | None = Field(None, ge=1)
    completion_tokens: int | None = Field(None, ge=1)
    tokens: int | None = Field(None, ge=1)
    """Of prompts and completions together."""
    wall_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds since the job began, pauses left out."""
    gpu_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """`wall_s` times the GPUs that the teacher's registration says its server has."""
    price: float | None = Field(None, gt=0, allow_inf_nan=False)
    """In the currency of the registered teacher's prices."""

    @model_validator(mode="after")
    def _can_be_spent(self) -> "Budget":
        if all(value is None for value in self.limits().values()):
            raise ValueError("an empty budget: give requests, tokens, wall_s, gpu_s or price")
        for part in ("prompt_tokens", "completion_tokens"):
            limit = self.limits()[part]
            if limit is not None and self.tokens is not None and limit > self.tokens:
                raise FieldError(
                    part, f"{part} of {limit} can't be reached within {self.tokens} tokens"
                )
        return self

    def limits(self) -> dict[str, float | None]:
        """Each limit by its name."""
        return {name: self.__dict__[name] for name in type(self).model_fields}


class Smoke(Frozen):
    """A gate: the first rows are asked alone; too few accepted, and the job pauses."""

    rows: int = Field(16, ge=1, le=10_000)
    min_accepted: float = Field(0.5, gt=0, le=1)
    """The share of them that must be accepted."""


class TeacherShare(Frozen):
    """One of a build's teachers."""

    name: str = Field(min_length=1)
    """Of a registered teacher."""
    weight: float = Field(1.0, gt=0, le=1e6)
    """Its part of the rows, over the sum of all weights; a fall-back's is not looked at."""


def teacher_of(teachers: tuple[TeacherShare, ...], row: str) -> str:
    """The teacher that a row is asked of: a function of its id and the weights alone."""
    place = int.from_bytes(sha256(f"teacher\n{row}".encode()).digest()[:8], "big") / 2**64
    place *= sum(teacher.weight for teacher in teachers)
    for teacher in teachers:
        place -= teacher.weight
        if place < 0:
            return teacher.name
    return teachers[-1].name
