"""What an in-context build asks for."""

from typing import Literal

from pydantic import Field, model_validator

from prompts.spec.common import Build
from prompts.template import TemplateSource, compile_template

ICL_TEMPLATE = (
    "{% for demo in demonstrations %}Input: {{ demo.input }}\nOutput: {{ demo.output }}\n\n"
    "{% endfor %}Input: {{ input }}\nOutput:"
)


class IclBuild(Build):
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
