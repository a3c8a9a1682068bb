"""A teacher in this process: scores completions that are there already, and writes none.

What no server gives, random draws from its distribution (arXiv:2503.16870), comes of this.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from prompts.plan import Request, row_number
from prompts.record import Call, CallDraws, CallSignal
from service.asking import TeacherError, refused

if TYPE_CHECKING:  # Late otherwise: torch comes with them, and few drains need it.
    from transformers import PreTrainedModel

    from trainer.scoring import Scored, Thoughts

PADDED_TOKENS = 8192
"""Of one forward pass, padding included, at most; but for a single row that is longer."""

Waiting = tuple[Request, "asyncio.Future[Call]"]


@dataclass
class Scorer:
    """The weights of one teacher, and the requests that wait for their forward pass."""

    teacher: str
    directory: Path | None
    _model: "PreTrainedModel | None" = None
    _waiting: list[Waiting] = field(default_factory=list)
    _working: asyncio.Task[None] | None = None

    def load(self) -> None:
        """Load the weights, if they aren't here yet. Raises TeacherError. Blocks."""
        from trainer.errors import BadInput
        from trainer.scoring import load_scorer

        if self._model is not None:
            return
        try:
            if self.directory is None:
                raise BadInput("its weights are not on this machine", "Register it with `model`.")
            self._model = load_scorer(self.directory)
        except BadInput as error:
            words = f"teacher {self.teacher}: {error}"
            raise TeacherError("teacher_without_weights", words) from error

    def close(self) -> None:
        """Let go of the weights. Nothing may be under way."""
        import torch

        self._model = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    async def answer(self, request: Request) -> Call:
        """The signal that a request asks for; those that wait together share a forward pass."""
        future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        await asyncio.sleep(0)  # Let those come that are on their way.
        while batch := self._next_batch():
            requests = [request for request, _ in batch]
            scoring = asyncio.to_thread(self._score, requests)
            (calls,) = await asyncio.gather(scoring, return_exceptions=True)
            for place, (_, future) in enumerate(batch):
                if future.done():
                    continue
                if isinstance(calls, BaseException):  # Whoever waits must hear of it.
                    future.set_exception(calls)
                else:
                    future.set_result(calls[place])

    def _next_batch(self) -> list[Waiting]:
        """Rows of like length, as many as a forward pass takes."""
        waiting = [each for each in self._waiting if not each[1].done()]  # Others were cancelled.
        waiting.sort(key=lambda each: _length(each[0]))
        count = 0
        while count < len(waiting) and (
            not count or (count + 1) * _length(waiting[count][0]) <= PADDED_TOKENS
        ):
            count += 1
        self._waiting = waiting[count:]
        return waiting[:count]

    def _score(self, requests: list[Request]) -> list[Call]:
        import torch

        try:
            return self._pass(requests)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        except RuntimeError as error:  # What the device or a kernel says; again it says the same.
            words = f"teacher {self.teacher} can't be computed with: {str(error)[:500]}"
            raise TeacherError("teacher_crashed", words) from error
        if len(requests) == 1:
            words = f"its {_length(requests[0])} tokens need more memory than the device has"
            return [refused(requests[0], words)]
        half = len(requests) // 2
        return self._score(requests[:half]) + self._score(requests[half:])

    def _pass(self, requests: list[Request]) -> list[Call]:
        from trainer.scoring import drawn, likeliest

        assert self._model is not None
        rows, first = [_scored(request) for request in requests], requests[0]
        if first.signal_draws is not None:
            found = drawn(self._model, rows, first.signal_draws)
        else:
            assert first.signal_top_k is not None
            found = likeliest(self._model, rows, first.signal_top_k)
        return [
            _call(request, row, thoughts)
            for request, row, thoughts in zip(requests, rows, found, strict=True)
        ]


def _length(request: Request) -> int:
    return len(request.tokens.ids) if request.tokens is not None else 0


def _scored(request: Request) -> "Scored":
    from trainer.scoring import Scored

    tokens = request.tokens
    assert tokens is not None
    assert tokens.scored_from is not None
    return Scored(tokens.ids, tokens.scored_from, row_number(request.row))


def _call(request: Request, row: "Scored", thoughts: "Thoughts") -> Call:
    token_ids = row.ids[row.start :]
    ids, values = tuple(map(tuple, thoughts.ids)), tuple(map(tuple, thoughts.values))
    signal: CallSignal | CallDraws
    if request.signal_draws is not None:
        signal = CallDraws(token_ids=token_ids, draws=ids, weights=values)
    else:
        signal = CallSignal(
            token_ids=token_ids, top_ids=ids, top_logprobs=values, logprobs=tuple(thoughts.own)
        )
    return Call(
        row=request.row,
        step=request.step,
        sample=request.sample,
        text="",
        finish_reason="stop",
        prompt_tokens=len(row.ids),
        signal=signal,
    )
