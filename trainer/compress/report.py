"""What a compression stage says about itself. Free of torch: services and reports read it."""

from typing import Any, Literal

from pydantic import Field

from prompts.record import Frozen
from trainer.measurement import Distance, Estimate, Measurement


class Shape(Frozen):
    """How big a model is."""

    parameters: int
    """Numbers in the model's tensors, a tied tensor once; quantized ones count as numbers."""
    nonzero: int
    """Those that are not zero."""
    weight_bytes: int
    """Bytes of the safetensors files on disk."""
    layers: int
    """Decoder layers."""


class RowAnswers(Frozen):
    """Greedy answers to prompts of the dataset's rows, judged by what stands in those rows."""

    rows: int
    """Of the split that the KLs are over."""
    exact_match: Estimate
    """Share of answers equal to the row's whole completion, white space around it aside."""
    rouge_l: Estimate
    """Of answers with the completions, 0..1."""
    accuracy: Estimate | None = None
    """Share of answers that the verifier takes for the gold one, or for the row's; None: `why`."""
    verifier: str | None = None
    """Its kind."""
    why: str = ""
    uncompared: int = 0
    """Answers that the verifier failed to compare: they count as wrong."""
    max_new_tokens: int
    """Tokens of the longest completion of those rows: no answer may be longer."""
    cut: int
    """Answers that met it before their end."""
    tokens_per_s: float
    """Generated, in transformers."""
    prefill_tokens_per_s: float
    """Prompt tokens over the wall time of their processing, in transformers."""
    decode_tokens_per_s: float | None
    """Tokens behind each answer's first over the wall time they took."""
    peak_memory_bytes: int
    """Its tensors' bytes, and the most that answering took on top."""


class ModelFacts(Frozen):
    """A model before or after a stage."""

    path: str
    shape: Shape
    measurement: Measurement | None = None
    """Accuracy per skill and generated tokens per second in transformers; None without
    evaluation rows."""
    kl_from_start: float | None = None
    """Mean KL(start || this), nats per completion token; None without a dataset."""
    from_start: Distance | None = None
    """The same with its interval, and how often both find the same token likeliest; None in older
    reports."""
    perplexity: Estimate | None = None
    """Of the completion tokens that the KLs are means over; None in older reports, and where it is
    no number."""
    from_teacher: Distance | None = None
    """KL(teacher || this) and top-1 agreement over the same tokens; None where no teacher was
    named."""
    row_answers: RowAnswers | None = None
    """None in older reports, and where none were asked for."""

    @property
    def timed(self) -> Measurement | RowAnswers | None:
        """What has its speeds and peak memory: the questions, else the rows, that it answered."""
        return self.measurement or self.row_answers


class HealFacts(Frozen):
    """The short training after a stage."""

    method: str
    steps: int
    seconds: float
    kl_before: float | None
    """KL(start || stage) before the heal, nats per token."""
    kl_after: float | None
    reloaded: dict[str, Any] | None = None
    """How far the files, loaded again, are from the model that was in training."""


class ServingComparison(Frozen):
    """A model in vLLM against the same directory in transformers."""

    passed: bool
    prompts: int
    tokens: int
    """Completion tokens compared."""
    dtype: str
    """Of activations, the same on both sides."""
    mean_logprob_difference: float
    """Mean |log p(vLLM) - log p(transformers)| of transformers' greedy tokens, teacher-forced."""
    limit: float
    """What that mean may be at most."""
    equal_completions: float
    """Share of prompts whose greedy completions are equal, 0..1."""
    equal_tokens: float
    """Share of transformers' greedy tokens up to each completion's first difference, 0..1."""
    vllm_tokens_per_s: float
    """Generated tokens per second, all prompts in flight at once."""
    vllm_prefill_tokens_per_s: float | None = None
    """Prompt tokens per second until all prompts had their first token; None in older reports."""
    vllm_decode_tokens_per_s: float | None = None
    """Tokens per second behind each answer's first, the prompts' keys and values being held; None
    in older reports, and where all answers ended with their first."""
    ready_s: float
    """From the server's start to its first answer."""
    vllm_version: str


class Answer(Frozen):
    """A model's, greedily, to an evaluation question or a row's prompt."""

    text: str
    right: bool
    """By the question's check, or the row's verifier; by equality where there is neither."""


class SideBySide(Frozen):
    """A question and its answers; long texts are cut in the middle."""

    id: str
    prompt: str
    """Its last message."""
    gold: str
    first: Answer
    """Of the chain's first model."""
    made: Answer
    """Of the model that the stage made."""

    @property
    def changed(self) -> bool:
        """Whether the two models' answers differ."""
        return self.first != self.made


class SweepPoint(Frozen):
    """Where in a sweep a stage stands."""

    stage: int
    """Which of the spec's stages is swept."""
    field: str
    """The field that the ratio is a value of."""
    ratio: float


class StageReport(Frozen):
    """One stage: what it did, what it cost, what it gained. Written last, as `report.json`."""

    version: Literal[1] = 1
    index: int
    kind: str
    digest: str
    """SHA-256 of the stage's spec, its source's files, the dataset and how it was measured; a
    report with the digest of what is asked for now makes the stage a finished one."""
    passed: bool
    """Whether the gate let it through and, if it was checked, vLLM agreed."""
    failures: tuple[str, ...] = ()
    """Why not, a sentence each."""
    spec: dict[str, Any]
    """The stage's spec, defaults filled in."""
    source: str
    """The model directory that it worked on."""
    model: str
    """The model directory that it made."""
    before: ModelFacts
    after: ModelFacts
    kl_from_source: float | None = None
    """Mean KL(before || after), nats per completion token."""
    from_source: Distance | None = None
    """The same with its interval; None in older reports."""
    answers: tuple[SideBySide, ...] = ()
    """To a few evaluation questions, or to a few rows' prompts where there are none; the same ones
    in each stage. Empty where nothing was asked, and where the chain's first report is an older
    one."""
    kl_tokens: int = 0
    """Completion tokens that the KLs are means over."""
    kl_split: str | None = None
    """The split they come from: validation, or train where validation is empty."""
    details: dict[str, Any] = Field(default_factory=dict)
    """What the method itself has to say: ranks, scores, sparsity."""
    sweep: SweepPoint | None = None
    notes: tuple[str, ...] = ()
    """What a reader must know to read the figures rightly."""
    heal: HealFacts | None = None
    serving: ServingComparison | None = None
    serving_note: str = ""
    """Why there is no comparison with vLLM."""
    calibration_rows: int
    """Rows whose activations the stage looked at; 0 where it needs none."""
    seconds: float
    """Wall time of the stage, its heal included, measurements left out."""
    measuring_seconds: float
    """Wall time of measuring and of the serving check."""

    @property
    def label(self) -> str:
        """For a person: the kind, with its ratio in a sweep."""
        return self.kind if self.sweep is None else f"{self.kind} {self.sweep.ratio:g}"
