"""Three skills in plain English, with exact answers: stories, in-context tasks, instructions."""

from examples.demo.world.instructions import (
    OPERATIONS,
    apply,
    draw_instruction,
    is_heldout_pair,
    told,
    understood,
)
from examples.demo.world.mappings import (
    FORM,
    OTHER_FORMS,
    TURNS,
    Form,
    draw_dictionary,
    draw_icl,
    draw_kind,
    draw_mapping,
    draw_narrow_icl,
    draw_pairs,
    draw_repetition,
)
from examples.demo.world.problem import Problem, Skill, Split, split_of
from examples.demo.world.stories import draw_story

__all__ = [
    "FORM",
    "OPERATIONS",
    "OTHER_FORMS",
    "TURNS",
    "Form",
    "Problem",
    "Skill",
    "Split",
    "apply",
    "draw_dictionary",
    "draw_icl",
    "draw_instruction",
    "draw_kind",
    "draw_mapping",
    "draw_narrow_icl",
    "draw_pairs",
    "draw_repetition",
    "draw_story",
    "is_heldout_pair",
    "split_of",
    "told",
    "understood",
]
