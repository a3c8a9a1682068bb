"""What to ask next for a row, or how it ended: pure in the seed and its ledger entries."""

from prompts.plan.ends import content_hash
from prompts.plan.plan import Plan, Step, make_plan
from prompts.plan.request import REFUSED, NotNeeded, Request, TeacherFacts
from prompts.plan.seeds import row_number, sampling_seed

__all__ = [
    "REFUSED",
    "NotNeeded",
    "Plan",
    "Request",
    "Step",
    "TeacherFacts",
    "content_hash",
    "make_plan",
    "row_number",
    "sampling_seed",
]
