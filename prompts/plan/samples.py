"""Which of a row's samples is kept, and how many agree with it."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prompts.checks import Reply
from prompts.record import Call, Reason
from prompts.verify import Verifier, VerifyError


@dataclass(frozen=True)
class Sample:
    """One answer, read and checked."""

    call: Call
    reply: Reply
    fault: tuple[Reason, str] | None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """What is kept of a row, if a judge doesn't object."""

    sample: Sample
    confidence: float | None = None
    hinted: bool = False


@dataclass(frozen=True)
class Fault:
    """Why nothing of a row is kept."""

    reason: Reason
    detail: str
    draft: Draft
    """What it is said of."""


def keep_one(
    samples: Sequence[Sample], verifier: Verifier, min_agreement: float | None
) -> Draft | Fault:
    """The draft of a row's samples, given in the order of their numbers.

    With gold answers only right samples are without fault, and the first of them is kept
    (rejection sampling). Without, the samples vote by their answers, equivalence counting, and the
    first of the largest class is kept; of classes of one size, the one with the earliest sample
    (self-consistency). `confidence` is the class's share of all samples, faulty ones included.
    If no sample is without fault, the fault that most have stands for the row; of several, the
    one met first.
    """
    good = [sample for sample in samples if sample.fault is None]
    if not good:
        return _common_fault(samples)
    if len(samples) == 1:
        return Draft(good[0])
    largest = max(_classes(good, verifier.same), key=len)  # The first of the largest.
    confidence = len(largest) / len(samples)
    if min_agreement is not None and confidence < min_agreement:
        draft = Draft(largest[0], confidence)
        share = f"{len(largest)} of {len(samples)} samples agree on {draft.sample.reply.answer!r}"
        return Fault(Reason.LOW_AGREEMENT, f"{share}, asked for {min_agreement:g}", draft)
    return Draft(largest[0], confidence)


def all_wrong(samples: Sequence[Sample]) -> bool:
    """Whether no sample reached the gold answer, and one at least tried."""
    tried = any(sample.reply.right is False or _silent(sample) for sample in samples)
    return tried and not any(sample.reply.right for sample in samples)


def _silent(sample: Sample) -> bool:
    return sample.fault is not None and sample.fault[0] == Reason.NO_ANSWER


def _classes(good: Sequence[Sample], same: Callable[[str, str], bool]) -> list[list[Sample]]:
    """Samples with equivalent answers; each is compared with the first of a class."""
    classes: list[list[Sample]] = []
    for sample in good:
        mine = next((group for group in classes if _agree(group[0], sample, same)), None)
        if mine is None:
            classes.append([sample])
        else:
            mine.append(sample)
    return classes


def _agree(one: Sample, other: Sample, same: Callable[[str, str], bool]) -> bool:
    if one.reply.right and other.reply.right:
        return True
    left, right = one.reply.answer or "", other.reply.answer or ""
    if left == right:
        return True
    try:
        return same(left, right)
    except VerifyError:
        return False


def _common_fault(samples: Sequence[Sample]) -> Fault:
    faults = [sample.fault for sample in samples if sample.fault is not None]
    common = Counter(reason for reason, _ in faults).most_common(1)[0][0]
    first = next(s for s in samples if s.fault is not None and s.fault[0] == common)
    assert first.fault is not None
    return Fault(*first.fault, Draft(first))
