"""What to ask next for a row, or how it ended: pure in the seed and its ledger entries."""

from prompts.plan.ends import content_hash
from prompts.plan.make import make_plan
from prompts.plan.plan import Plan, Step
from prompts.plan.request import (
    REFUSED,
    SCORES,
    Encoded,
    EncodeError,
    NotNeeded,
    Opening,
    Request,
    TeacherFacts,
    Tokens,
)
from prompts.plan.rescore import RescorePlan, scored_record, scored_seed
from prompts.plan.seeds import row_number, sampling_seed

__all__ = [
    "REFUSED",
    "SCORES",
    "EncodeError",
    "Encoded",
    "NotNeeded",
    "Opening",
    "Plan",
    "Request",
    "RescorePlan",
    "Step",
    "TeacherFacts",
    "Tokens",
    "content_hash",
    "make_plan",
    "row_number",
    "sampling_seed",
    "scored_record",
    "scored_seed",
]
