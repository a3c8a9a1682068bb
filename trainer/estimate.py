"""How much memory a training takes, reckoned from configurations before any weight is read."""

from typing import TypeGuard

import psutil
import torch
from transformers import PretrainedConfig, PreTrainedModel

from trainer.adapters import add_lora
from trainer.data import TokenRows
from trainer.device import training_device
from trainer.events import Emit, silent
from trainer.loading import outline, stored_dtype
from trainer.objectives.head import positions_at_once
from trainer.plan import Plan, layout
from trainer.space import what_to_lower
from trainer.spec import MiniLLM, OnPolicy, ServedKL, TrainSpec, WithTeacher

_LOGIT_TENSORS = 7.0
"""As many of a chunk's shape are alive at once: measured with the forward KL, fp32, on a GPU."""
ELSEWHERE = "teacher, on the CPU"


def memory(spec: TrainSpec, rows: TokenRows, plan: Plan) -> dict[str, float]:
    """Estimated bytes by what they are for. Activations count about 34 bytes for each of the
    model's width, a token and layer, in 16 bits (arXiv:2205.05198, attention's own left out), twice
    that in 32; with gradient checkpointing one layer's, and each layer's input."""
    model, optimization = _outline(spec), spec.optimization
    config, device = model.config, training_device()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    longest = max(rows.rows, key=lambda row: len(row.ids))  # those of its length share a step
    rows_at_once = min(optimization.batch_size, len(plan.order.rows(0)))
    batch = layout(optimization)([longest] * rows_at_once)
    wide = 2 if optimization.precision == "fp32" else 1
    layer = 34 * batch.input_ids.numel() * config.hidden_size * wide
    layers = config.num_hidden_layers
    kept = layer + layers * batch.input_ids.numel() * config.hidden_size * 2 * wide
    positions = positions_at_once(device, config.vocab_size)
    found = {
        "weights": 4.0 * sum(parameter.numel() for parameter in model.parameters()),
        "gradients and AdamW": 12.0 * trained,
        "activations, about": kept if optimization.gradient_checkpointing else layer * layers,
        "logits": _LOGIT_TENSORS * 4 * config.vocab_size * positions,
    }
    if isinstance(spec, WithTeacher):
        found |= _teacher_memory(spec)
    if _draws(spec):
        found["answers' cache"] = _cache_memory(
            spec, config, max(row.prompt_tokens for row in rows.rows), rows_at_once
        )
    return found


def _draws(spec: TrainSpec) -> TypeGuard[OnPolicy | MiniLLM | ServedKL]:
    """Whether the student answers in this process while it learns."""
    if isinstance(spec, OnPolicy | ServedKL):
        return spec.student_share > 0 and spec.vllm is None
    return isinstance(spec, MiniLLM)


def _cache_memory(
    spec: OnPolicy | MiniLLM | ServedKL,
    config: PretrainedConfig,
    prompt_tokens: int,
    prompts: int,
) -> float:
    """Bytes of keys and values of one drawing's answers, each as long as it may get."""
    optimization, text = spec.optimization, config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    length = min(optimization.max_length, prompt_tokens + spec.max_new_tokens)
    answers = prompts * spec.samples
    width = 4 if optimization.precision == "fp32" else 2
    return float(2 * width * answers * length * text.num_hidden_layers * heads * size)


def warn_of_memory(spec: TrainSpec, rows: TokenRows, plan: Plan, emit: Emit) -> None:
    """A warning with what to lower, where the device has less free than the training should take.
    No refusal: it is an estimate, of one process that holds all weights."""
    found, device = memory(spec, rows, plan), training_device()
    need = sum(size for name, size in found.items() if device.type == "cpu" or name != ELSEWHERE)
    free = free_bytes(device)
    if need <= free:
        return
    parts = ", ".join(f"{name} {size / 1e9:.1f}" for name, size in found.items())
    detail = f"it should take about {need / 1e9:.1f} GB ({parts}), and {free / 1e9:.1f} are free"
    emit("warning", {"detail": f"memory may not do: {detail}. {what_to_lower(spec)}."})


def free_bytes(device: torch.device) -> int:
    """Of the GPU, else of the machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def _outline(spec: TrainSpec) -> PreTrainedModel:
    shape = outline(spec.student)
    if spec.lora is not None:
        add_lora(shape, spec.lora, silent)
    return shape


def _teacher_memory(spec: WithTeacher) -> dict[str, float]:
    """As many values as its configuration has, in the width that they are loaded in; what is not
    narrowed (embeddings, scales) is not told apart."""
    load = spec.teacher_load
    saved = float(stored_dtype(spec.teacher).itemsize)
    width = {"saved": saved, "fp32": 4.0, "bf16": 2.0}[load.dtype]
    width = width if load.bits is None else load.bits / 8
    values = sum(parameter.numel() for parameter in outline(spec.teacher).parameters())
    return {ELSEWHERE if load.offload else "teacher": values * width}
