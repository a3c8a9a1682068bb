"""What builds with demonstrations ask for."""

from typing import Literal

from pydantic import Field, model_validator

from prompts.fields import FieldError
from prompts.spec.common import Build
from prompts.spec.selectors import (
    SIMILAR,
    EmbeddingSelector,
    MmrSelector,
    RandomSelector,
    SelectorSpec,
)
from prompts.template import TemplateSource, compile_template


class Shots(Build):
    """Labelled demonstrations before each query; the query itself is never among them."""

    template: TemplateSource
    pool: str | None = None
    """Id of an uploaded labelled pool; None takes the labelled seeds, train only."""
    demonstrations: int = Field(0, ge=0, le=256)
    """How many demonstrations a prompt holds."""
    selector: SelectorSpec = RandomSelector()
    """How they are selected."""
    selector_seed: int = 0
    """Another seed draws other demonstrations."""
    group_by: str | None = None
    """A seed's field: demonstrations come from the same group only (a task's name, say)."""
    fixed: Literal["per_row", "per_group"] = "per_row"
    """per_group: all rows of a group see the same demonstrations, so that the server's prefix cache
    holds them; a row that is one of them sees the next in its place."""
    order: Literal["as_selected", "reversed", "random"] = "as_selected"
    """reversed: the most similar one last, next to the query."""
    demonstration_tokens: int | None = Field(None, ge=1)
    """At most so many tokens of demonstrations, counted with the teacher's tokenizer: those
    selected last are left out. At least one must fit."""

    @property
    def embedder(self) -> str | None:
        """The registered teacher that embeds queries and pool, if the selector needs one."""
        if not self.demonstrations or not isinstance(
            self.selector, EmbeddingSelector | MmrSelector
        ):
            return None
        return self.selector.embedder

    @model_validator(mode="after")
    def _shows_what_it_chooses(self) -> "Shots":
        shows = compile_template(self.template, demonstrations=True).shows_demonstrations
        if self.demonstrations and not shows:
            raise FieldError(
                "template", "the template shows no demonstrations: loop over them, or ask for 0"
            )
        if self.fixed == "per_group" and self.selector.kind in SIMILAR:
            raise FieldError(
                "fixed",
                f"selector {self.selector.kind!r} looks at each row's query; with fixed: per_group"
                " use random or label_balanced",
            )
        if self.demonstration_tokens is not None and not self.demonstrations:
            raise FieldError(
                "demonstration_tokens",
                "demonstration_tokens limits demonstrations, and there are 0",
            )
        return self
