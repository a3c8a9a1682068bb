"""Facts of model directories: size, accuracy, speed, and how far they are from the first one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from trainer.compress.answers import beside_first, chosen
from trainer.compress.report import ModelFacts, SideBySide
from trainer.compress.size import measure_shape
from trainer.data import TokenRow
from trainer.errors import BadInput
from trainer.evaluate import Compared, Said, compare, examine, listen
from trainer.loading import load_model
from trainer.measurement import Distance, Estimate, bootstrap, exponential
from trainer.spec import EvalSpec

KL_ROWS = 256
"""Rows that KLs are means over, at most."""
OWN = ("retort.json", "samples.json", "recipe.yaml", "README.md")
"""Files beside a model that speak of how that model was made."""
PICKLED = (".bin", ".bin.index.json")
"""Weights in a form that is never read."""
RESAMPLES = 2000
"""Of an interval; seeded, so that the same rows give the same ends."""


@dataclass(frozen=True)
class Measuring:
    """How the models of one chain are measured: all on the same rows."""

    start: Path
    evaluate: EvalSpec | None
    rows: tuple[TokenRow, ...]
    """For KLs."""
    split: str
    """Where they come from."""
    serving_prompts: tuple[tuple[int, ...], ...]
    digest: str
    """Of the rows and questions."""

    def of_start(self) -> tuple[ModelFacts, tuple[SideBySide, ...]]:
        """The facts of the chain's first model, which has KL 0 from itself, and its answers."""
        return self._facts(self.start, compare(self._first, self._first))

    def of_made(
        self, source: Path, model_dir: Path, first: Sequence[SideBySide] = ()
    ) -> tuple[ModelFacts, Compared, tuple[SideBySide, ...]]:
        """A made model's facts, how it compares with its source, for both of which it is asked
        once, and its answers beside those of the first model."""
        said = self._said(model_dir)
        from_start = compare(self._first, said)
        alike = source == self.start
        from_source = from_start if alike else compare(self._said(source), said)
        facts, answers = self._facts(model_dir, from_start)
        return facts, from_source, beside_first(first, answers)

    def _facts(
        self, model_dir: Path, from_start: Compared
    ) -> tuple[ModelFacts, tuple[SideBySide, ...]]:
        measured, said = examine(model_dir, self.evaluate) if self.evaluate else (None, ())
        facts = ModelFacts(
            path=str(model_dir),
            shape=measure_shape(model_dir),
            measurement=measured,
            kl_from_start=from_start.mean_kl[0],
            from_start=estimate_distance(from_start),
            perplexity=estimate_perplexity(from_start),
        )
        return facts, chosen(said)

    def kl(self, reference: Path, model_dir: Path) -> tuple[float, int]:
        """Mean KL(reference || model), nats per completion token, and the tokens."""
        said = self._first if reference == self.start else self._said(reference)
        return compare(said, self._said(model_dir)).mean_kl

    @cached_property
    @torch.inference_mode()
    def _first(self) -> Said:
        """Of the chain's first model, which every later one is compared with: asked once."""
        said = self._said(self.start)
        if not all(torch.isfinite(said.logits(batch)).all() for batch in range(len(said.hidden))):
            raise BadInput(
                f"what {self.start} says of the {self.split} rows is not finite",
                "Nothing can be compared with it. Load it in fp32 or bf16, or look at its weights.",
            )
        return said

    def _said(self, model_dir: Path) -> Said:
        return listen(load_model(model_dir), self.rows)

    def prompts(self) -> Sequence[Sequence[int]]:
        """Token ids of the prompts that both engines are asked."""
        return self.serving_prompts


def estimate_distance(found: Compared) -> Distance:
    """With intervals over rows. The likeliest of what is no number says nothing."""
    kl = _estimate(found.kl, found.tokens)
    agreed = _estimate(found.agreed, found.tokens) if kl is not None else None
    return Distance(kl=kl, top1_agreement=agreed)


def estimate_perplexity(found: Compared) -> Estimate | None:
    """With its interval over rows; None where it is no number."""
    nats = _estimate(found.nats, found.tokens)
    return None if nats is None else exponential(nats)


def _estimate(sums: Tensor, tokens: Tensor) -> Estimate | None:
    """Per token; None where a row's sum is no number, or there are no tokens."""
    if not bool(torch.isfinite(sums).all()) or not bool(tokens.sum()):
        return None
    return bootstrap(sums.tolist(), tokens.tolist(), RESAMPLES)


def digest_model(model_dir: Path) -> str:
    """SHA-256 over weights, configuration, tokenizer, chat template and whatever else stands beside
    them; how they came about stays out of it."""
    made = hashlib.sha256()
    for path in sorted(model_dir.iterdir()):
        if path.is_file() and path.name not in OWN and not path.name.endswith(PICKLED):
            made.update(path.name.encode())
            with path.open("rb") as stream:
                made.update(hashlib.file_digest(stream, "sha256").digest())
    return made.hexdigest()


def digest_measuring(dataset: Path, evaluate: EvalSpec | None) -> str:
    """Of the dataset's manifest and the evaluation's rows and settings; paths stay out of it."""
    made = hashlib.sha256((dataset / "manifest.json").read_bytes())
    if evaluate is not None:
        fields = evaluate.model_dump(mode="json", exclude={"data", "batch_size"})
        made.update(json.dumps(fields, sort_keys=True).encode())
        made.update(Path(evaluate.data).read_bytes())
    return made.hexdigest()
