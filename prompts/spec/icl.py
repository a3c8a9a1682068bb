"""What an in-context build asks for."""

from typing import Literal

from pydantic import Field

from prompts.spec.shots import Shots
from prompts.template import TemplateSource
from prompts.verify.spec import NoVerifier, VerifierSpec

ICL_TEMPLATE = (
    "{% for demo in demonstrations %}Input: {{ demo.input }}\nOutput: {{ demo.output }}\n\n"
    "{% endfor %}Input: {{ input }}\nOutput:"
)


class IclBuild(Shots):
    """In-context learning: demonstrations from a labelled pool stand before each query."""

    kind: Literal["icl"]
    demonstrations: int = Field(4, ge=0, le=256)
    """How many demonstrations a prompt holds."""
    template: TemplateSource = ICL_TEMPLATE
    """Jinja2, with the seed's fields and `demonstrations`."""
    verify: VerifierSpec = NoVerifier()
    """How answers are compared with the seed's `output`; true is exact. Those that differ are
    rejected."""
