"""A training by each method, small enough for a second, with all that it needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from prompts.record import Record
from prompts.signal import SignalHeader, top_k_row, write_signal
from tests.trainer.conftest import make_model, make_records, make_tokenizer
from tests.trainer.methods.made import dense, icl_records, made, spec_of
from tests.trainer.methods.served_teacher import Fake, serving
from trainer.batch import pad
from trainer.loading import load_model
from trainer.spec import TrainSpec

ON_POLICY = {"gkd", "minillm"}
FIELDS: dict[str, dict[str, Any]] = {
    "sequence_level": {},
    "rationale_then_answer": {},
    "step_by_step": {"rationale_prefix": "w39 ", "label_share": 0.3},
    "forward_kl": {"kd_temperature": 2.0, "cross_entropy_weight": 0.3},
    "kd": {
        "divergence": {"kind": "adaptive_kl"},
        "features": [{"kind": "hidden"}, {"kind": "relation"}],
    },
    "stored_kl": {"divergence": {"kind": "jsd"}},
    "served_kl": {"served_model": "big", "top_k": 5},
    "gkd": {"max_new_tokens": 6, "samples": 2},
    "minillm": {"max_new_tokens": 6, "text_weight": 0.5},
    "meta_ict": {},
    "multitask_ict": {"kd_temperature": 1.5},
    "uld": {},
}


def records_of(method: str, count: int) -> list[Record]:
    """Rows that the method can use."""
    if method in ("meta_ict", "multitask_ict"):
        return icl_records(count)
    rows = make_records(count)
    if method == "step_by_step":
        return [row.model_copy(update={"answer": str(n)}) for n, row in enumerate(rows)]
    return rows


@contextmanager
def training_by(
    place: Path, method: str, changed: dict[str, Any] | None = None, **optimization: Any
) -> Iterator[TrainSpec]:
    """Its spec, whose signal, text or server is there as long as the context."""
    fields = FIELDS[method] | (changed or {})
    if method == "stored_kl":
        _write_signal(place)
        fields["dataset"] = str(place)
    if method == "minillm":
        (place / "text.txt").write_text("\n".join(f"w{n} w{n + 2} w{n + 3}" for n in range(9)))
        fields = {"text": str(place / "text.txt"), **fields}
    if method != "served_kl":
        yield spec_of(place, method, **fields, optimization=optimization)
        return
    with serving(Fake(make_model(1), make_tokenizer())) as fake:
        yield spec_of(place, method, **{"teacher": fake.url, **fields}, optimization=optimization)


def _write_signal(place: Path) -> None:
    """Of the teacher, for as many rows as any test takes."""
    if (place / "signal").exists():
        return
    run, _ = made(spec_of(place, "sequence_level"), make_records(20))
    teacher = load_model(place / "teacher")
    signals = {}
    for row in run.rows.rows:
        values, ids = dense(teacher, pad([row])).log_softmax(-1).topk(8)
        tokens = row.ids[row.prompt_tokens :].copy()
        signals[row.row] = top_k_row(tokens, ids.numpy().astype(np.int32), values.numpy())
    (place / "signal").mkdir()
    header = SignalHeader(kind="top_k", width=8, teacher="t")
    write_signal(place / "signal" / "a.signal", header, signals.items())
