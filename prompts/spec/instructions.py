"""What an instruction build asks for."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prompts.fields import FieldError
from prompts.spec.common import Build
from prompts.spec.methods import Magpie, MethodSpec, Respond, SelfInstruct
from prompts.template import TemplateSource, compile_template
from prompts.tools import Tool

IF_TEMPLATE = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"


class InstructionBuild(Build):
    """Instruction following: the teacher's responses to given instructions, or to its own."""

    kind: Literal["if"]
    template: TemplateSource = IF_TEMPLATE
    """Jinja2, with the seed's fields."""
    tools: (
        Annotated[str, Field(min_length=1)]
        | Annotated[tuple[Tool, ...], Field(min_length=1, max_length=128)]
        | None
    ) = None
    """Functions that the teacher may call, as OpenAI's `tools`; or a seed's field that holds them.
    A completion may then be calls; they are not made, and those that can't be made are rejected."""
    method: MethodSpec = Respond()
    """Where the instructions come from."""

    @property
    def takes_seeds(self) -> bool:
        """False for magpie, which has none."""
        return self.method.kind != "magpie"

    @model_validator(mode="before")
    @classmethod
    def _no_seeds_for_magpie(cls, given: Any) -> Any:
        method = given.get("method") if isinstance(given, dict) else None
        kind = method.get("kind") if isinstance(method, dict) else None
        if (kind == "magpie" or isinstance(method, Magpie)) and "seeds" not in given:
            return {**given, "seeds": ()}
        return given

    @model_validator(mode="after")
    def _names_each_function_once(self) -> "InstructionBuild":
        names = [tool.function.name for tool in self.tools or () if isinstance(tool, Tool)]
        if len(set(names)) < len(names):
            raise FieldError("tools", "a function's name comes twice")
        if isinstance(self.tools, str) and self.method.kind in ("self_instruct", "magpie"):
            raise FieldError(
                "tools",
                f"rows of method {self.method.kind} have no field {self.tools!r}; list the"
                " functions here",
            )
        return self

    @model_validator(mode="after")
    def _writes_enough(self) -> "InstructionBuild":
        if isinstance(self.method, SelfInstruct | Magpie):
            most = self.method.rounds * self.method.rows_per_round
            if (self.target_rows or 0) > most:
                raise FieldError(
                    "target_rows",
                    f"target_rows of {self.target_rows} can't come of {self.method.rounds} rounds"
                    f" of {self.method.rows_per_round} rows",
                )
        return self

    @model_validator(mode="after")
    def _fills_nothing_from_seeds(self) -> "InstructionBuild":
        if self.takes_seeds:
            return self
        for name in ("seeds", "columns", "turns"):
            if self.__dict__[name]:
                raise FieldError(name, "method magpie has no seeds; leave it out")
        if self.system is not None and compile_template(self.system).required:
            raise FieldError("system", "method magpie has no seeds to fill its fields from")
        return self

    @model_validator(mode="after")
    def _shows_what_is_written(self) -> "InstructionBuild":
        written = compile_template(self.template)
        if self.method.kind != "respond" and "instruction" not in written.required:
            raise FieldError(
                "template",
                f"method {self.method.kind} writes the field 'instruction' (and 'input'), and the"
                " template doesn't show it",
            )
        rounds = isinstance(self.method, SelfInstruct | Magpie)
        if rounds and written.required - {"instruction", "id"}:
            others = ", ".join(sorted(written.required - {"instruction", "id"}))
            raise FieldError(
                "template", f"method {self.method.kind} writes an instruction, not {others}"
            )
        if rounds and self.incremental:
            raise FieldError(
                "incremental",
                f"method {self.method.kind} writes all its rows anew; build under"
                " another name, with near_duplicates.against the version before",
            )
        if self.method.kind == "self_instruct" and self.signal is not None:
            raise FieldError(
                "signal",
                "a classification task's label is no answer of self_instruct's teacher;"
                " leave `signal` out, or answer the instructions in a build of their own",
            )
        return self
