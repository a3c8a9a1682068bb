"""What an instruction build asks for."""

from typing import Literal

from pydantic import model_validator

from prompts.spec.common import Build
from prompts.spec.methods import MethodSpec, Respond
from prompts.template import TemplateSource, compile_template

IF_TEMPLATE = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"


class InstructionBuild(Build):
    """Instruction following: the teacher's responses to given instructions, or to its own."""

    kind: Literal["if"]
    template: TemplateSource = IF_TEMPLATE
    """Jinja2, with the seed's fields."""
    method: MethodSpec = Respond()
    """Where the instructions come from."""

    @model_validator(mode="after")
    def _shows_what_is_written(self) -> "InstructionBuild":
        written = compile_template(self.template)
        if self.method.kind != "respond" and "instruction" not in written.required:
            raise ValueError(
                f"method {self.method.kind} writes the field 'instruction' (and 'input'), and the"
                " template doesn't show it"
            )
        if self.method.kind == "self_instruct" and written.required - {"instruction", "id"}:
            others = ", ".join(sorted(written.required - {"instruction", "id"}))
            raise ValueError(f"method self_instruct writes instruction and input, not {others}")
        if self.method.kind == "self_instruct" and self.signal is not None:
            raise ValueError(
                "signal: a classification task's label is no answer of self_instruct's teacher;"
                " leave `signal` out, or answer the instructions in a build of their own"
            )
        return self
