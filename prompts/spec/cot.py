"""What a chain-of-thought build asks for."""

from typing import Literal

from prompts.parse import AnswerPattern
from prompts.spec.common import Build
from prompts.template import TemplateSource

COT_TEMPLATE = "{{ question }}\nThink step by step, then end with 'The answer is N.'"


class CotBuild(Build):
    """Chain of thought: rationale and answer, verified where the seed has a gold answer."""

    kind: Literal["cot"]
    template: TemplateSource = COT_TEMPLATE
    """Jinja2, with the seed's fields."""
    answer_pattern: AnswerPattern = r"(?i:answer is|####):?\s*(-?\$?-?[\d,]*\.?\d+(?:\s?/\s?\d+)?)"
    """Regular expression; its last match's first group is the answer, what stands before it the
    rationale."""
    gold_field: str = "answer"
    """The seed's field with the gold answer; a `#### N` ending is understood."""
    verify: Literal["numeric", "none"] = "numeric"
    """numeric: reject rows whose answer is not numerically equal to the gold one."""
