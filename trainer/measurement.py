"""What one measurement of a model says. Free of torch, so that a report can be drawn without it."""

import math

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
    cut: int = 0
    """Answers that met the limit of new tokens before their end."""
    kl: float | None = None
    """Mean KL(reference || model), nats per completion token, if a reference was given."""
    kl_tokens: int = 0
    """Completion tokens that mean is over."""

    @property
    def mean_accuracy(self) -> float:
        """Mean over skills, each skill counting once."""
        return sum(skill.share for skill in self.skills.values()) / len(self.skills)


def wilson(correct: int, n: int) -> Accuracy:
    """Wilson's 95% score interval; n must be at least one."""
    z = 1.959963984540054
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Accuracy(correct=correct, n=n, low=max(0.0, centre - half), high=min(1.0, centre + half))
