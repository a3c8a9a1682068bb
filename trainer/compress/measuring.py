"""Facts of model directories: size, accuracy, speed, and how far they are from the first one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.compress.answers import RESAMPLES, AskedRows, answer_rows, beside_first, chosen
from trainer.compress.report import ModelFacts, SideBySide
from trainer.compress.size import measure_shape
from trainer.data import TokenRow
from trainer.device import at_work
from trainer.errors import BadInput
from trainer.evaluate import Compared, Said, compare, examine_loaded, listen
from trainer.loading import load_model, load_tokenizer
from trainer.measurement import Distance, Estimate, bootstrap, exponential
from trainer.spec import CompressSpec, EvalSpec

OWN = ("retort.json", "samples.json", "recipe.yaml", "README.md")
"""Files beside a model that speak of how that model was made."""
PICKLED = (".bin", ".bin.index.json")
"""Weights in a form that is never read."""


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
    asked: AskedRows | None = None
    """Rows that every model answers."""
    teacher: Path | None = None
    """What else KLs are taken from."""

    def begin(self) -> None:
        """Ask those that all models are compared with, before anything is made. BadInput where
        what one of them says is not finite."""
        _ = (self._first, self._teacher)  # both are kept

    def of_start(self) -> tuple[ModelFacts, tuple[SideBySide, ...]]:
        """The facts of the chain's first model, which has KL 0 from itself, and its answers."""
        first, model = self._first, load_model(self.start)
        return self._facts(self.start, model, first, compare(first, first))

    def of_made(
        self, source: Path, model_dir: Path, first: Sequence[SideBySide] = ()
    ) -> tuple[ModelFacts, Compared, tuple[SideBySide, ...]]:
        """A made model's facts, how it compares with its source, for both of which it is asked
        once, and its answers beside those of the first model."""
        alike = source == self.start
        before = self._first if alike else self._said(source)
        model = load_model(model_dir)
        said = listen(model, self.rows)
        from_start = compare(self._first, said)
        from_source = from_start if alike else compare(before, said)
        facts, answers = self._facts(model_dir, model, said, from_start)
        return facts, from_source, beside_first(first, answers)

    def _facts(
        self, model_dir: Path, model: PreTrainedModel, said: Said, from_start: Compared
    ) -> tuple[ModelFacts, tuple[SideBySide, ...]]:
        tokenizer, measured, answers, rows = load_tokenizer(model_dir), None, None, None
        if self.evaluate is not None:
            measured, answered = examine_loaded(model_dir, model, tokenizer, self.evaluate)
            answers = chosen(answered)
        if self.asked is not None:
            rows, to_rows = answer_rows(model, tokenizer, self.asked)
            answers = to_rows if answers is None else answers
        from_teacher = compare(self._teacher, said) if self._teacher is not None else None
        facts = ModelFacts(
            path=str(model_dir),
            shape=measure_shape(model_dir),
            measurement=measured,
            kl_from_start=from_start.mean_kl[0],
            from_start=estimate_distance(from_start),
            perplexity=estimate_perplexity(from_start),
            from_teacher=estimate_distance(from_teacher) if from_teacher is not None else None,
            row_answers=rows,
        )
        return facts, answers or ()

    def kl(self, reference: Path, model_dir: Path) -> tuple[float, int]:
        """Mean KL(reference || model), nats per completion token, and the tokens."""
        said = self._first if reference == self.start else self._said(reference)
        return compare(said, self._said(model_dir)).mean_kl

    @cached_property
    def _first(self) -> Said:
        """Of the chain's first model, which every later one is compared with: asked once."""
        return self._finite(self.start)

    @cached_property
    def _teacher(self) -> Said | None:
        """Asked once for all models: its last hidden states and its head are its distributions."""
        return self._finite(self.teacher) if self.teacher is not None else None

    @torch.inference_mode()
    def _finite(self, model_dir: Path) -> Said:
        said = self._said(model_dir)
        with at_work(said.head):
            made = (said.logits(batch) for batch in range(len(said.hidden)))
            finite = all(bool(torch.isfinite(logits).all()) for logits in made)
        if not finite:
            raise BadInput(
                f"what {model_dir} says of the {self.split} rows is not finite",
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


def digest_measuring(dataset: Path, spec: CompressSpec) -> str:
    """Of the dataset's manifest, the evaluation's rows and settings, and what else is asked for;
    paths stay out of it, and so does what an older version's reports can't have asked for."""
    made = hashlib.sha256((dataset / "manifest.json").read_bytes())
    evaluate = spec.evaluate
    if evaluate is not None:
        fields = evaluate.model_dump(mode="json", exclude={"data", "batch_size"})
        made.update(json.dumps(fields, sort_keys=True).encode())
        made.update(Path(evaluate.data).read_bytes())
    if spec.answer_rows != CompressSpec.model_fields["answer_rows"].default:
        made.update(f"answer_rows {spec.answer_rows}".encode())
    if spec.teacher is not None:
        made.update(f"teacher {digest_model(Path(spec.teacher))}".encode())
    return made.hexdigest()
