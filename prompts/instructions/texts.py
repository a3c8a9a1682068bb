"""What the teacher is told when it writes instructions. Our own words."""

from collections.abc import Sequence

from prompts.spec.methods import Operator

REWRITE = """You improve a collection of instructions for a language model. Rewrite the one below.
{how}
Keep it something that a person might really ask, that text alone can answer, and no more than a \
few sentences longer. Answer with the new instruction only, without any remark.

Instruction:
{instruction}

New instruction:"""

OPERATORS: dict[Operator, str] = {
    "constrain": "Add one more condition or requirement that the answer has to meet.",
    "deepen": "If it asks about a subject, make it ask in more depth and breadth about it.",
    "concretise": "Replace general notions in it with specific ones.",
    "reason": "If a few simple thoughts answer it, make it need several steps of reasoning.",
    "complicate_input": "Give it some data to work on, such as a table, a list, a formula or code.",
    "broaden": (
        "Don't change it: write an entirely new one in its place, of the same field and about as"
        " hard, but rarer."
    ),
}

COMPARE = """Do these two instructions ask for the same: the same conditions to meet, and the same \
depth and breadth of answer? Answer with one word, Equal or Different.

First:
{first}

Second:
{second}"""

WRITE = """Below are tasks that people gave to a language model. Write one more task, of another \
kind and about something else. Give the instruction only, in one or two sentences, such that a \
model which reads and writes text alone can follow it.

{examples}
{number}. Instruction:"""

CLASSIFY = """Can every answer to the following task be picked from a short, fixed list of labels \
(a classification task)? Answer with one word, Yes or No.

Task: {instruction}"""

INPUT = """The following task may need some text or data to work on. If it does, write one example \
of it, and nothing else. If it can be done as it stands, write {none}.

Task: {instruction}
Input:"""

LABEL = """The following is a classification task. Name one label that an answer to it may have: \
number {number} of those that come to mind. Answer with the label only.

Task: {instruction}
Label:"""

LABELLED_INPUT = """The following is a classification task. Write one input for which the right \
answer is exactly the label given. Answer with the input only.

Task: {instruction}
Label: {label}
Input:"""

NONE = "<none>"


def examples(instructions: Sequence[str]) -> str:
    """A numbered list of instructions."""
    return "\n".join(
        f"{number}. Instruction: {' '.join(text.split())}"
        for number, text in enumerate(instructions, 1)
    )
