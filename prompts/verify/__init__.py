"""Whether an answer is the gold one: equivalence, not equality of strings."""

from prompts.verify.errors import GoldError, VerifyError
from prompts.verify.number import gold_answer, same_number, to_number
from prompts.verify.spec import VerifierSpec
from prompts.verify.verifier import Verifier, as_text, gold_text, make_verifier

__all__ = [
    "GoldError",
    "Verifier",
    "VerifierSpec",
    "VerifyError",
    "as_text",
    "gold_answer",
    "gold_text",
    "make_verifier",
    "same_number",
    "to_number",
]
