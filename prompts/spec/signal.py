"""Which of the teacher's thoughts a build keeps beside its words."""

from pydantic import Field, model_validator

from prompts.record import Frozen


class Signal(Frozen):
    """What is stored of the teacher's distribution at each token of a completion: one of the two.

    top_k serves divergences at the temperature it was recorded at, sampled is unbiased
    [2503.16870] and needs the teacher's weights in process.
    """

    top_k: int | None = Field(None, ge=1, le=1000)
    """The k likeliest tokens and the log mass of all others; the teacher must give as many."""
    sampled: int | None = Field(None, ge=1, le=1000)
    """So many draws with importance weights; only in a rescore build with `in_process`."""

    @model_validator(mode="after")
    def _is_one_of_the_two(self) -> "Signal":
        if (self.top_k is None) == (self.sampled is None):
            raise ValueError("give one of top_k and sampled")
        return self


class SignalRefusedError(ValueError):
    """This teacher, or these teachers together, can't give the signal that is asked for."""


def check_signal(
    signal: Signal,
    teacher: str,
    max_logprobs: int | None,
    tokenizers: dict[str, str | None],
) -> None:
    """Whether teachers that are asked over HTTP can give it. Raises SignalRefusedError, which says
    what to do.

    `tokenizers`: teacher -> SHA-256 of its tokenizer, for every teacher of the build; None where
    that is not known.
    """
    if signal.sampled is not None:
        raise SignalRefusedError(
            f"sampled needs the teacher in process, and {teacher!r} is asked over HTTP, which gives"
            " the likeliest tokens only: ask for top_k, or build without and draw afterwards, by a"
            " rescore build with in_process: true"
        )
    if max_logprobs is not None and (signal.top_k or 0) > max_logprobs:
        raise SignalRefusedError(
            f"top_k is {signal.top_k}, teacher {teacher!r} gives {max_logprobs} log-probs a token;"
            " ask for fewer, or serve it with a larger --max-logprobs"
        )
    if len(tokenizers) > 1 and (None in tokenizers.values() or len(set(tokenizers.values())) > 1):
        known = ", ".join(f"{name}: {sha and sha[:12]}" for name, sha in tokenizers.items())
        raise SignalRefusedError(
            "one signal holds token ids of one tokenizer, and these teachers' are not known to be"
            f" the same ({known}); register them with their model directories, or build apart"
        )
