"""The stages of a compression: one spec per method, each with its own `kind`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.base import AtLeast, Spec
from trainer.spec.optimization import Optimization
from trainer.spec.quantization import SchemeName, check_group_size
from trainer.spec.sweep import Sweep


class Gate(Spec):
    """How much a stage may lose before the chain stops."""

    max_accuracy_drop: float | None = Field(0.10, ge=0, le=1)
    """Of mean accuracy on the evaluation rows, absolute; None does not look."""
    max_kl: float | None = Field(None, gt=0)
    """Nats per token from the model before the stage; None does not look."""


class Heal(Spec):
    """A short training run after a stage, towards the model the chain started from."""

    method: Literal["forward_kl", "stored_kl", "sequence_level"] | None = None
    """forward_kl: KL from the chain's first model, in the process. stored_kl: from the teacher's
    signal stored with the dataset, at its temperature. sequence_level: the dataset's completions
    alone. None: stored_kl where the dataset has a signal that fits, else forward_kl."""
    optimization: Optimization = Optimization()


class Stage(Spec):
    """What every stage has."""

    on: Literal["previous", "start"] = "previous"
    """The model it works on: the stage before, or the model that the chain started from."""
    gate: Gate = Gate()
    heal: Heal | None = None
    calibration_rows: int = Field(128, ge=1)
    """Rows of the dataset's train split whose activations the stage looks at."""

    @model_validator(mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, given: Any) -> Any:
        """YAML 1.1 takes a bare `on` for a truth value, keys included."""
        if isinstance(given, dict) and True in given and "on" not in given:
            return {"on" if key is True else key: value for key, value in given.items()}
        return given


class HealAlone(Stage):
    """A short training and nothing else: a second heal, or one with settings of its own."""

    kind: Literal["heal"]
    heal: Heal = Heal()


class Evaluate(Stage):
    """A measurement and a gate: the model stays as it is."""

    kind: Literal["evaluate"]

    @model_validator(mode="after")
    def _changes_nothing(self) -> "Evaluate":
        if self.heal is not None:
            raise ValueError("evaluate changes nothing: use kind: heal to train")
        return self


class _Mask(Stage):
    """Weights set to zero within the linears of the decoder layers."""

    sparsity: float = Field(0.5, gt=0, lt=1)
    """Share of each linear's weights that become zero."""
    sweep: Sweep | None = None
    """Several shares in the place of `sparsity`."""
    layer_sparsities: tuple[float, ...] | None = None
    """One share for each decoder layer in the place of `sparsity`."""
    pattern: Literal["unstructured", "2:4", "4:8"] = "unstructured"
    """n:m keeps n of each m inputs and fixes the sparsity."""

    @model_validator(mode="after")
    def _pattern_fixes_the_sparsity(self) -> "_Mask":
        if self.pattern != "unstructured" and (self.sparsity != 0.5 or self.layer_sparsities):
            raise ValueError(f"pattern {self.pattern} zeroes half: leave sparsity at 0.5")
        if self.layer_sparsities and self.sparsity != 0.5:
            raise ValueError("layer_sparsities replaces sparsity: leave that out")
        for index, share in enumerate(self.layer_sparsities or ()):
            if not 0 <= share < 1:
                raise ValueError(f"layer_sparsities[{index}] is {share}: give 0 or more, below 1")
        fixed = self.pattern != "unstructured" or self.layer_sparsities or self.sparsity != 0.5
        if self.sweep is not None and fixed:
            raise ValueError("sweep replaces sparsity: leave that, patterns and layers out")
        return self

    def in_layer(self, index: int) -> float:
        """The share of a layer's weights that go."""
        return self.layer_sparsities[index] if self.layer_sparsities else self.sparsity


class MagnitudePrune(_Mask):
    """Unstructured pruning by |W| over each linear: the floor that needs no data."""

    kind: Literal["magnitude"]


class WandaPrune(_Mask):
    """Unstructured pruning by |W| * ||x||, within each output row (arXiv:2306.11695)."""

    kind: Literal["wanda"]


class SparseGptPrune(_Mask):
    """Unstructured pruning that mends what it removes with the weights left (arXiv:2301.00774)."""

    kind: Literal["sparsegpt"]
    damping: float = Field(0.01, gt=0)
    """Added to the diagonal of X^T X, as a share of its mean."""
    block: int = Field(128, ge=1)
    """Columns whose mask is chosen at once."""

    @model_validator(mode="after")
    def _groups_within_blocks(self) -> "SparseGptPrune":
        if self.pattern != "unstructured" and self.block % int(self.pattern[-1]):
            raise ValueError(f"block {self.block} is no multiple of the groups of {self.pattern}")
        return self


class DepthPrune(Stage):
    """Structured pruning of whole layers, the least important first."""

    kind: Literal["depth"]
    layers: int = Field(1, ge=1)
    """How many layers go."""
    importance: Literal["block_influence", "perplexity"] = "block_influence"
    """1 - cos(in, out) (arXiv:2403.03853), or the loss without the layer (arXiv:2402.02834)."""


class WidthPrune(Stage):
    """Structured pruning of units, the same number in each layer: an ordinary smaller model."""

    kind: Literal["width"]
    feed_forward: int | None = Field(None, ge=1)
    """Units of each feed-forward block that stay."""
    key_value_groups: int | None = Field(None, ge=1)
    """Whole groups of attention heads that stay, each with its key and value."""
    heads_per_group: int | None = Field(None, ge=1)
    """Query heads that stay in each group."""
    hidden: int | None = Field(None, ge=1)
    """Units of the residual stream that stay."""
    importance: Literal["activation", "taylor"] = "activation"
    """Mean |activation| (arXiv:2407.14679), or |w dL/dw| of coupled weights (arXiv:2305.11627)."""

    @model_validator(mode="after")
    def _something_goes(self) -> "WidthPrune":
        sizes = (self.feed_forward, self.key_value_groups, self.heads_per_group, self.hidden)
        if not any(sizes):
            raise ValueError(
                "name at least one of feed_forward, key_value_groups, heads_per_group and hidden"
            )
        return self


TARGETS = ("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class SvdFactorize(Stage):
    """Low-rank factors by truncated SVD of the weights, scaled by what they are given."""

    kind: Literal["svd"]
    parameter_ratio: float = Field(0.6, gt=0, lt=1)
    """r (m + n) / (m n): what the factors keep of the targets' parameters."""
    sweep: Sweep | None = None
    """Several ratios in the place of `parameter_ratio`."""
    max_bytes: int | None = Field(None, ge=1)
    """Search ranks for a model of at most so many bytes of weights, instead of a ratio."""
    max_relative_error: float | None = Field(None, gt=0, lt=1)
    """Search the smallest ranks whose outputs lose at most this, instead of a ratio."""
    max_loss_increase: float | None = Field(None, gt=0)
    """Search the smallest ranks with which the model loses at most so many nats per token of the
    calibration rows, instead of a ratio."""
    scaling: Literal["whitening", "activation", "none"] = "whitening"
    """SVD-LLM (arXiv:2403.07378), ASVD (arXiv:2312.05821), or the plain Eckart-Young truncation."""
    alpha: float = Field(0.5, ge=0, le=1)
    """ASVD's exponent of the mean |activation|."""
    ranks: Literal["uniform", "by_loss"] = "uniform"
    """One ratio for all targets, or the same number of parameters where they lose least."""
    rank_multiple: int = Field(1, ge=1)
    """Ranks are multiples of it, rounded down: a group size of a later W4A16 must divide them."""
    targets: Annotated[tuple[str, ...], AtLeast(1)] = TARGETS
    """Names of the linears to factorize."""

    @model_validator(mode="after")
    def _one_way_to_say_how_much(self) -> "SvdFactorize":
        given = {
            "max_bytes": self.max_bytes,
            "max_relative_error": self.max_relative_error,
            "max_loss_increase": self.max_loss_increase,
        }
        searched = [name for name, value in given.items() if value is not None]
        if len(searched) > 1 or (searched and self.parameter_ratio != 0.6):
            raise ValueError(f"give one of parameter_ratio, {', '.join(given)}")
        if self.sweep is not None and (searched or self.parameter_ratio != 0.6):
            raise ValueError("sweep replaces parameter_ratio: leave that and searches out")
        if searched and searched[0] != "max_bytes" and self.ranks == "uniform":
            raise ValueError(f"{searched[0]} chooses ranks by loss: set ranks: by_loss")
        if self.alpha != 0.5 and self.scaling != "activation":
            raise ValueError("alpha is read by scaling: activation alone")
        return self


class TensorFactorize(Stage):
    """Experimental: attention folded to [D, head size, 2, heads] and decomposed (arXiv:2501.15674).

    The weights are stored multiplied out; the report says what the factors would take.
    """

    kind: Literal["tensor"]
    form: Literal["tucker", "cp"] = "tucker"
    parameter_ratio: float = Field(0.5, gt=0, lt=1)
    """What the factors keep of the folded weights' parameters."""
    sweep: Sweep | None = None
    """Several ratios in the place of `parameter_ratio`."""
    starts: int = Field(3, ge=1, le=20)
    """Random starts of CP, of which the best is kept."""
    seed: int = 0

    @model_validator(mode="after")
    def _only_cp_starts_at_random(self) -> "TensorFactorize":
        if self.form == "tucker" and (self.starts != 3 or self.seed != 0):
            raise ValueError("starts and seed are read by form: cp alone")
        if self.sweep is not None and self.parameter_ratio != 0.5:
            raise ValueError("sweep replaces parameter_ratio: leave that out")
        return self


ALGORITHMS = {
    "W8A8": ("rtn", "gptq", "smoothquant"),
    "W8A16": ("rtn", "gptq"),
    "W4A16": ("rtn", "gptq", "awq"),
    "FP8": ("rtn",),
}
"""Scheme -> the algorithms that make it."""


class QuantizeTrain(Stage):
    """Quantization-aware training: weights through their rounding (arXiv:1308.3432), exported in
    exactly that scheme as compressed-tensors."""

    kind: Literal["qat"]
    scheme: SchemeName = "W4A16"
    """As for ptq."""
    group_size: int = Field(128, ge=1)
    """Inputs that share a scale in W4A16."""
    training: Heal = Heal()
    """The run: its loss and its optimizer."""

    @model_validator(mode="after")
    def _group_size_is_read(self) -> "QuantizeTrain":
        check_group_size(self.scheme, self.group_size)
        return self


class QuantizeFinetune(Stage):
    """Quantization-aware fine-tuning: rounded once, then a small part is trained."""

    kind: Literal["qaf"]
    method: Literal["peqa", "qlora", "qa_lora"] = "peqa"
    """peqa (arXiv:2305.14152): the scales of fixed codes. qlora (arXiv:2305.14314): adapters on a
    rounded base, merged and rounded again. qa_lora (arXiv:2309.14717): adapters on sums over
    groups of inputs, merged into zero points."""
    scheme: SchemeName = "W4A16"
    """As for ptq."""
    group_size: int = Field(128, ge=1)
    """Inputs that share a scale in W4A16."""
    rank: int = Field(16, ge=1)
    """Of qlora's and qa_lora's adapters."""
    alpha: int = Field(32, ge=1)
    """Adapters are scaled by alpha / rank."""
    initialization: Literal["zero", "loftq"] = "zero"
    """qlora's start: the rounded model, or base and adapters as near the model as rounding and SVD
    in turn bring them (arXiv:2310.08659)."""
    loftq_rounds: int = Field(5, ge=1, le=50)
    training: Heal = Heal()
    """The run: its loss and its optimizer."""

    @model_validator(mode="after")
    def _all_fields_are_read(self) -> "QuantizeFinetune":
        check_group_size(self.scheme, self.group_size)
        if self.method == "peqa" and (self.rank != 16 or self.alpha != 32):
            raise ValueError("rank and alpha are read by method: qlora and qa_lora alone")
        if self.method != "qlora" and self.initialization != "zero":
            raise ValueError("initialization is read by method: qlora alone")
        if self.initialization != "loftq" and self.loftq_rounds != 5:
            raise ValueError("loftq_rounds is read by initialization: loftq alone")
        if self.method == "qa_lora" and self.scheme != "W4A16":
            raise ValueError("qa_lora merges into the zero points of groups: use scheme W4A16")
        return self


class QuantizePtq(Stage):
    """Post-training quantization, exported as compressed-tensors."""

    kind: Literal["ptq"]
    scheme: SchemeName = "W8A8"
    algorithm: Literal["rtn", "gptq", "smoothquant", "awq"] = "gptq"
    group_size: int = Field(128, ge=1)
    """Inputs that share a scale in W4A16."""

    @model_validator(mode="after")
    def _an_algorithm_makes_the_scheme(self) -> "QuantizePtq":
        if self.algorithm not in ALGORITHMS[self.scheme]:
            known = ", ".join(ALGORITHMS[self.scheme])
            raise ValueError(f"algorithm {self.algorithm} doesn't make {self.scheme}: use {known}")
        check_group_size(self.scheme, self.group_size)
        return self
