"""Any model on a dataset's own rows: likelihood, answers, distance from a teacher, bytes.

B batch, T tokens, K completion tokens of a batch, V vocabulary.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from prompts.record import Record
from prompts.verify import Verifier
from trainer.beside import answer, engine_for, shown, speed_in_vllm, speed_of, texts_of
from trainer.compress.size import count_parameters
from trainer.data import TokenRow, collate, encode, read_records
from trainer.device import at_work
from trainer.errors import BadInput
from trainer.events import Emit
from trainer.judging import Checks, Judged, checks_of, judge, verifier_or_why
from trainer.loading import (
    NO_LIMIT,
    check_weights,
    end_ids,
    held_tokens,
    load_model,
    load_tokenizer,
    positions,
    weight_files,
)
from trainer.measurement import Assessment, Estimate, bootstrap, exponential
from trainer.memory import model_peak, restart_peak
from trainer.methods.selection import complete
from trainer.methods.teacher import check_vocabularies
from trainer.objectives import capped, forward_kl, keep, upcast
from trainer.spec import DatasetEval
from trainer.student import last_hidden, soft_cap


@dataclass(frozen=True)
class Read:
    """What a model makes of the completions as they stand, row by row: sums over tokens."""

    tokens: list[float]
    nats: list[float]
    kl: list[float]
    agreed: list[float]


def assess(
    model_dir: str | Path, spec: DatasetEval, emit: Emit, vllm_python: Path | None = None
) -> Assessment:
    """Measure a model on rows of a dataset's split; with `spec.vllm`, its speed in vLLM too, of
    `vllm_python` or the environment beside this one.

    Raises BadInput for what is no model or dataset, a split without rows, weights or outputs that
    are no numbers, and a teacher with another vocabulary.
    """
    torch.set_num_threads(spec.threads or len(os.sched_getaffinity(0)))
    (records, unfinished), checks = _records(spec), checks_of(Path(spec.dataset), spec.verify)
    engine = engine_for(spec, vllm_python)
    verifier = _verifier(checks)
    emit("phase", {"name": "evaluate", "detail": f"{model_dir} on {len(records)} rows"})
    tokenizer, model = load_tokenizer(model_dir), load_model(model_dir)
    check_weights(model_dir, model)
    check_teacher(spec, tokenizer)
    held = [held_tokens(model), positions(spec.teacher) if spec.teacher else None]
    limit = min((one for one in held if one is not None), default=NO_LIMIT)
    rows = encode(records, tokenizer, limit, end_ids(model, tokenizer))
    kept = {row.row for row in rows.rows}
    records = [record for record in records if record.id in kept]
    with at_work(model):
        resting = restart_peak(model.device)
        answers = answer(model, tokenizer, records, spec)
        peak, texts = model_peak(model, resting, model.device), texts_of(answers, tokenizer)
    teacher = _teacher(spec)
    read = read_rows(model, teacher, rows.rows, spec.batch_size)
    _check_outputs(read, model_dir, spec)
    judged = judge(records, texts, checks, verifier, spec.resamples)
    loss = bootstrap(read.nats, read.tokens, spec.resamples)
    compared = teacher is not None
    figures = {
        "perplexity": exponential(loss),
        "accuracy": judged.accuracy,
        "kl": bootstrap(read.kl, read.tokens, spec.resamples) if compared else None,
        "top1_agreement": bootstrap(read.agreed, read.tokens, spec.resamples) if compared else None,
    }
    return Assessment(
        model=str(model_dir),
        dataset=spec.dataset,
        split=spec.split,
        rows=len(records),
        left_out=rows.too_long,
        unfinished=unfinished,
        parameters=count_parameters(model),
        weight_bytes=sum(path.stat().st_size for path in weight_files(model_dir)),
        tokens_per_s=answers.tokens_per_s,
        speed=speed_of(answers),
        vllm=speed_in_vllm(model_dir, model, tokenizer, records, spec, engine),
        peak_memory_bytes=peak,
        samples=shown(records, texts, (teacher, tokenizer) if teacher else None, spec),
        cut=answers.cut,
        verifier=checks.spec.kind if figures["accuracy"] else None,
        exact_match=judged.exact_match,
        rouge_l=judged.rouge_l,
        uncompared=judged.uncompared,
        why=_why(figures, judged),
        **figures,
    )


@torch.inference_mode()
def read_rows(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    rows: Sequence[TokenRow],
    batch_size: int,
) -> Read:
    """Log-likelihood, and the distance from a teacher where there is one, of each row."""
    with at_work(*(one for one in (model, teacher) if one is not None)):
        return _read_rows(model, teacher, rows, batch_size)


def _read_rows(
    model: PreTrainedModel,
    teacher: PreTrainedModel | None,
    rows: Sequence[TokenRow],
    batch_size: int,
) -> Read:
    read = Read(*([0.0] * len(rows) for _ in range(4)))
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].ids))
    for start in range(0, len(order), batch_size):
        part = order[start : start + batch_size]
        batch = collate([rows[index] for index in part])
        ids, mask = batch["input_ids"], batch["completion_mask"]
        owners = [part[row] for row in mask[:, 1:].nonzero()[:, 0].tolist()]
        logits, targets = _kept_logits(model, ids, mask)
        nats = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        _add(read.nats, owners, nats)
        _add(read.tokens, owners, torch.ones_like(nats))
        if teacher is not None:
            theirs, _ = _kept_logits(teacher, ids, mask)
            size = min(logits.shape[-1], theirs.shape[-1])
            ours, theirs = logits[:, :size], theirs[:, :size]
            _add(read.kl, owners, forward_kl(ours, theirs, 1.0))
            _add(read.agreed, owners, (ours.argmax(-1) == theirs.argmax(-1)).float())
    return read


def _why(figures: dict[str, Estimate | None], judged: Judged) -> dict[str, str]:
    reasons = {
        "perplexity": "it is larger than a number can be: the model has diverged",
        "accuracy": judged.why,
        "kl": "no teacher was named",
        "top1_agreement": "no teacher was named",
    }
    return {name: why for name, why in reasons.items() if figures[name] is None}


def _records(spec: DatasetEval) -> tuple[list[Record], int]:
    """Complete rows, evenly spread over the split; how many of the split are not."""
    records = read_records(Path(spec.dataset), spec.split)
    found = complete(records)
    if len(found) < 2:
        raise BadInput(
            f"{spec.dataset} has {len(found)} complete rows in its {spec.split} split",
            "Two at least are needed for an interval. Name another split.",
        )
    taken = min(spec.limit, len(found))
    spread = [found[index * len(found) // taken] for index in range(taken)]
    return spread, len(records) - len(found)


def _verifier(checks: Checks) -> Verifier:
    verifier, why = verifier_or_why(checks)
    if verifier is None:
        raise BadInput(why, "Name another verifier with --verify.")
    return verifier


def _teacher(spec: DatasetEval) -> PreTrainedModel | None:
    if spec.teacher is None:
        return None
    model = load_model(spec.teacher)
    check_weights(spec.teacher, model)
    return model


def _check_outputs(read: Read, model_dir: str | Path, spec: DatasetEval) -> None:
    """Weights that are numbers may overflow on their way."""
    for source, figures in ((model_dir, read.nats), (spec.teacher, read.kl)):
        if not all(math.isfinite(figure) for figure in figures):
            raise BadInput(
                f"{source} gives outputs that are not finite",
                "Its activations overflow: it has diverged, or needs a wider dtype.",
            )


def check_teacher(spec: DatasetEval, tokenizer: PreTrainedTokenizerBase) -> None:
    """BadInput where the teacher has other tokens, before anything is measured."""
    if spec.teacher is not None:
        remedy = "name a teacher of the model's family, or none"
        check_vocabularies(tokenizer, load_tokenizer(spec.teacher), remedy)


def _kept_logits(
    model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """[K, V] and the tokens that came, [K], where the model is."""
    ids, mask = ids.to(model.device), mask.to(model.device)
    kept, targets = keep(last_hidden(model, ids), ids, mask)
    logits = upcast(model.get_output_embeddings()(kept))
    return capped(logits, soft_cap(model)), targets


def _add(sums: list[float], owners: Sequence[int], values: torch.Tensor) -> None:
    for owner, value in zip(owners, values.tolist(), strict=True):
        sums[owner] += value
