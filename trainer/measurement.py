"""What one measurement of a model says. Free of torch, so that a report can be drawn without it."""

import math
from collections.abc import Sequence

import numpy as np
from pydantic import Field

from prompts.record import Frozen


class Accuracy(Frozen):
    """Right answers among those asked, with Wilson's 95% interval (1927)."""

    correct: int
    n: int
    low: float
    """Lower end, 0..1."""
    high: float
    """Upper end, 0..1."""

    @property
    def share(self) -> float:
        """Right answers over all, 0..1."""
        return self.correct / self.n


class Measurement(Frozen):
    """How well, how fast and how big a model is, measured in one run on one machine."""

    model: str
    """The directory or hub name that was measured."""
    skills: dict[str, Accuracy]
    parameters: int
    """Numbers in the model's tensors, a tied tensor once."""
    weight_bytes: int
    """Bytes of the weight files on disk."""
    generated_tokens: int
    seconds: float
    """Wall time of generation alone, loading left out."""
    tokens_per_s: float
    prefill_tokens_per_s: float | None = None
    """Prompt tokens over the wall time of their processing; None where it was not timed."""
    decode_tokens_per_s: float | None = None
    """Tokens behind each answer's first over the wall time they took."""
    peak_memory_bytes: int | None = None
    """Its tensors' bytes, and the most that answering took on top. In measurements of earlier
    versions the whole process."""
    cut: int = 0
    """Answers that met the limit of new tokens before their end."""
    kl: float | None = None
    kl_tokens: int = 0
    """Set in older measurements alone: a stage's report has its KL."""

    @property
    def mean_accuracy(self) -> float:
        """Mean over skills, each skill counting once."""
        return sum(skill.share for skill in self.skills.values()) / len(self.skills)


class Estimate(Frozen):
    """A figure over rows, with a 95% interval of the bootstrap."""

    value: float
    low: float
    high: float
    rows: int


class Distance(Frozen):
    """How far a model is from another, over completion tokens. None where it is no number."""

    kl: Estimate | None
    """KL(other || this), nats per completion token."""
    top1_agreement: Estimate | None
    """Share of completion tokens whose likeliest token is the other's, 0..1."""


class Speed(Frozen):
    """How fast an engine is with a model, many prompts at once, on one machine."""

    engine: str
    prefill_tokens_per_s: float
    """Prompt tokens over the wall time until all prompts had their first token."""
    decode_tokens_per_s: float | None
    """Tokens generated behind the first over the wall time they took; None where answers ended
    with their first."""


class Sample(Frozen):
    """One prompt's answers side by side."""

    id: str
    prompt: str
    """Its last message."""
    dataset: str
    """The row's completion."""
    model: str
    """The model's, greedily."""
    teacher: str | None = None
    """The teacher's, greedily, where one was named."""


class Assessment(Frozen):
    """A model on a dataset's own rows. None is what couldn't be measured; `why` says why."""

    model: str
    dataset: str
    split: str
    rows: int
    left_out: int
    """Rows longer than the model holds."""
    unfinished: int = 0
    """Rows of the split whose own answer met its token limit: left out."""
    perplexity: Estimate | None
    """Of completion tokens."""
    exact_match: Estimate
    """Share of greedy answers equal to the whole completion, white space aside."""
    rouge_l: Estimate
    """Of greedy answers with the completions, 0..1."""
    accuracy: Estimate | None = None
    """Share of answers that the verifier takes for the gold one, or for the row's."""
    verifier: str | None = None
    """Its kind."""
    uncompared: int = 0
    """Answers that it failed to compare: they count as wrong."""
    kl: Estimate | None = None
    """KL(teacher || model), nats per completion token."""
    top1_agreement: Estimate | None = None
    """Share of completion tokens whose likeliest token is the teacher's."""
    parameters: int
    weight_bytes: int
    tokens_per_s: float
    """Generated, all batches."""
    speed: Speed
    """In transformers."""
    vllm: Speed | None = None
    peak_memory_bytes: int
    """Its tensors' bytes, and the most that answering took on top."""
    samples: tuple[Sample, ...] = ()
    cut: int
    """Answers that met the limit of new tokens before their end."""
    why: dict[str, str] = Field(default_factory=dict)


def exponential(figure: Estimate) -> Estimate | None:
    """e to a figure, and to its interval's ends; None where one is beyond any number."""
    try:
        value, low, high = (math.exp(each) for each in (figure.value, figure.low, figure.high))
    except OverflowError:
        return None
    return Estimate(value=value, low=low, high=high, rows=figure.rows)


def bootstrap(
    sums: Sequence[float], weights: Sequence[float], resamples: int, seed: int = 0
) -> Estimate:
    """sum(sums) / sum(weights) over rows, and the 2.5% and 97.5% quantiles of that ratio over
    resampled rows (Efron, 1979): rows are drawn whole, since tokens of one row go together."""
    tops, bottoms = np.asarray(sums, dtype=float), np.asarray(weights, dtype=float)
    random = np.random.default_rng(seed)
    drawn = random.integers(0, len(tops), size=(resamples, len(tops)))
    ratios = tops[drawn].sum(axis=1) / bottoms[drawn].sum(axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    value = float(tops.sum() / bottoms.sum())
    return Estimate(value=value, low=float(low), high=float(high), rows=len(tops))


def wilson(correct: int, n: int) -> Accuracy:
    """Wilson's 95% score interval; n must be at least one."""
    z = 1.959963984540054
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Accuracy(correct=correct, n=n, low=max(0.0, centre - half), high=min(1.0, centre + half))
