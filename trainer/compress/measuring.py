"""Facts of model directories: size, accuracy, speed, and how far they are from the first one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.compress.report import ModelFacts
from trainer.compress.size import measure_shape
from trainer.data import TokenRow
from trainer.evaluate import mean_kl, measure
from trainer.loading import load_model
from trainer.spec import EvalSpec

KL_ROWS = 256
"""Rows that KLs are means over, at most."""


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

    def facts(self, model_dir: Path) -> ModelFacts:
        """A model's facts; the chain's first has KL 0 from itself."""
        measurement = measure(model_dir, self.evaluate) if self.evaluate else None
        kl = 0.0 if model_dir == self.start else self.kl(self.start, model_dir)[0]
        shape = measure_shape(model_dir)
        return ModelFacts(
            path=str(model_dir), shape=shape, measurement=measurement, kl_from_start=kl
        )

    def kl(self, reference: Path, model_dir: Path) -> tuple[float, int]:
        """Mean KL(reference || model), nats per completion token, and the tokens."""
        return mean_kl(load_model(reference), load_model(model_dir), self.rows)

    def prompts(self) -> Sequence[Sequence[int]]:
        """Token ids of the prompts that both engines are asked."""
        return self.serving_prompts


def digest_model(model_dir: Path) -> str:
    """SHA-256 over configuration and weights; how they came about stays out of it."""
    made = hashlib.sha256()
    for path in sorted(model_dir.iterdir()):
        if path.name == "config.json" or ".safetensors" in path.suffixes:
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
