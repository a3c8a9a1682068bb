"""What a teacher is told when it writes instructions: our own words, or a recipe's."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from prompts.record import Frozen
from prompts.template import TemplateError, TemplateSource, compile_template

NO_INPUT = "<none>"

REWRITE = """You improve a collection of instructions for a language model. Rewrite the one below.
{{ how }}
Keep it something that a person might really ask, that text alone can answer, and no more than a \
few sentences longer. Answer with the new instruction only, without any remark.

Instruction:
{{ instruction }}

New instruction:"""

COMPARE = """Do these two instructions ask for the same: the same conditions to meet, and the same \
depth and breadth of answer? Answer with one word, Equal or Different.

First:
{{ first }}

Second:
{{ second }}"""

WRITE = """Below are tasks that people gave to a language model. Write one more task, of another \
kind and about something else. Give the instruction only, in one or two sentences, such that a \
model which reads and writes text alone can follow it.

{% for task in tasks %}{{ loop.index }}. Instruction: {{ task }}
{% endfor %}{{ number }}. Instruction:"""

CLASSIFY = """Can every answer to the following task be picked from a short, fixed list of labels \
(a classification task)? Answer with one word, Yes or No.

Task: {{ instruction }}"""

INPUT = """The following task may need some text or data to work on. If it does, write one example \
of it, and nothing else. If it can be done as it stands, write {{ no_input }}.

Task: {{ instruction }}
Input:"""

LABEL = """The following is a classification task. Name one label that an answer to it may have: \
number {{ number }} of those that come to mind. Answer with the label only.

Task: {{ instruction }}
Label:"""

LABELLED_INPUT = """The following is a classification task. Write one input for which the right \
answer is exactly the label given. Answer with the input only.

Task: {{ instruction }}
Label: {{ label }}
Input:"""

_SAMPLES: Mapping[str, Any] = {
    "tasks": ("Name a fruit.", "Sort these words: b a."),
    "number": 3,
    "instruction": "Name a fruit.",
    "how": "Add a condition.",
    "first": "Name a fruit.",
    "second": "Name a red fruit.",
    "no_input": NO_INPUT,
    "label": "fruit",
}


def told(source: str, **fields: object) -> str:
    """What the teacher is told. Raises TemplateError where these fields can't be shown."""
    return compile_template(source).render(fields)


def _showing(*needed: str, offered: tuple[str, ...] = ()) -> AfterValidator:
    """That a template shows what it must, reads nothing else, and can be rendered."""
    there = (*needed, *offered)

    def check(source: str) -> str:
        template = compile_template(source)
        if missing := [name for name in needed if name not in template.fields]:
            raise TemplateError(f"the template doesn't show {', '.join(missing)}")
        if unknown := sorted(template.fields - set(there)):
            raise TemplateError(
                f"the template shows {', '.join(unknown)}; there is {', '.join(there)}"
            )
        told(source, **{name: _SAMPLES[name] for name in there})
        return source

    return AfterValidator(check)


OperatorText = Annotated[str, Field(min_length=1)]


class EvolPrompts(Frozen):
    """What evol-instruct asks. An operator's text stands where `rewrite` shows `how`."""

    rewrite: Annotated[TemplateSource, _showing("how", "instruction")] = REWRITE
    compare: Annotated[TemplateSource, _showing("first", "second")] = COMPARE
    """The answer is read by its first word: Equal eliminates the rewriting."""
    constrain: OperatorText = "Add one more condition or requirement that the answer has to meet."
    deepen: OperatorText = (
        "If it asks about a subject, make it ask in more depth and breadth about it."
    )
    concretise: OperatorText = "Replace general notions in it with specific ones."
    reason: OperatorText = (
        "If a few simple thoughts answer it, make it need several steps of reasoning."
    )
    complicate_input: OperatorText = (
        "Give it some data to work on, such as a table, a list, a formula or code."
    )
    broaden: OperatorText = (
        "Don't change it: write an entirely new one in its place, of the same field and about as"
        " hard, but rarer."
    )


class SelfInstructPrompts(Frozen):
    """What self-instruct asks, in the order of its steps."""

    write: Annotated[TemplateSource, _showing("tasks", offered=("number",))] = WRITE
    """`tasks` is a list of instructions; `number` is that of the one to write."""
    classify: Annotated[TemplateSource, _showing("instruction")] = CLASSIFY
    """The answer is read by its first word: Yes makes it a classification task."""
    input: Annotated[TemplateSource, _showing("instruction", offered=("no_input",))] = INPUT
    """`no_input` is what the teacher is to write where none is needed."""
    label: Annotated[TemplateSource, _showing("instruction", "number")] = LABEL
    """`number`, one to five, is different in different rows."""
    labelled_input: Annotated[TemplateSource, _showing("instruction", "label")] = LABELLED_INPUT
