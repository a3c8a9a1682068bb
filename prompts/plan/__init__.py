"""What to ask next for a row, or how it ended: pure in the seed and its ledger entries."""

from prompts.plan.plan import Plan, content_hash, make_plan, row_number, sampling_seed
from prompts.plan.request import REFUSED, NotNeeded, Request, TeacherFacts

__all__ = [
    "REFUSED",
    "NotNeeded",
    "Plan",
    "Request",
    "TeacherFacts",
    "content_hash",
    "make_plan",
    "row_number",
    "sampling_seed",
]
