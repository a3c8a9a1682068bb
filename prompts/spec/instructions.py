"""What an instruction build asks for."""

from typing import Literal

from prompts.spec.common import Build
from prompts.template import TemplateSource

IF_TEMPLATE = "{{ instruction }}{% if input %}\n\n{{ input }}{% endif %}"


class InstructionBuild(Build):
    """Instruction following: the teacher's responses to given instructions."""

    kind: Literal["if"]
    template: TemplateSource = IF_TEMPLATE
    """Jinja2, with the seed's fields."""
