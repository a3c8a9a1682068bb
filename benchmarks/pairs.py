"""A student and a teacher to time, and the ways in which others compute the same losses.

B sequences, T tokens, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.peer import Trl
from benchmarks.place import ON_GPU, PLACE
from trainer.batch import Batch
from trainer.data import TokenRow
from trainer.methods.off_policy import mixed, towards
from trainer.methods.teacher import Teacher
from trainer.objectives.divergences import forward
from trainer.student import Losses, Objective, Seen, Student


def make_model(width: int, layers: int, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """A Llama with random weights, heads of 32 (of 64 in bf16 on a GPU)."""
    head = 64 if ON_GPU else 32
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // head,
        num_key_value_heads=width // head,
        max_position_embeddings=1024,
        tie_word_embeddings=False,
        initializer_range=0.05,
    )
    with PLACE:
        model: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    if ON_GPU:
        nn.Module.to(model, torch.bfloat16)
    return model


def make_rows(count: int, vocabulary: int, longest: int) -> list[TokenRow]:
    """Prompts and answers of log-normal lengths, the prompt about as long as its answer."""
    generator = np.random.Generator(np.random.PCG64(0))

    def length() -> int:
        return int(np.clip(generator.lognormal(np.log(longest / 6), 0.6), 4, longest // 2))

    rows = []
    for number in range(count):
        prompt, answer = length(), length()
        ids = generator.integers(8, vocabulary, prompt + answer, dtype=np.int32)
        rows.append(TokenRow(str(number), ids, prompt))
    return rows


def towards_teacher(teacher: LlamaForCausalLM) -> Objective:
    """The forward KL of `kd`, with a teacher that is at hand already."""
    held = Teacher(teacher.requires_grad_(False))

    def losses(seen: Seen, targets: Tensor, batch: Batch) -> Losses:
        term = towards(held, forward, held.kept(batch), 1.0)
        return Losses(mixed("forward_kl", term, targets, 0.0))

    return Objective(losses)


def stepped(student: Student, batch: Batch) -> float:
    """Loss and gradients of one pass; the loss."""
    student.zero_grad(set_to_none=True)
    loss, _ = student(lambda one: one.loss(batch, float(batch.kept)))
    loss.backward()
    return float(loss.detach())


def dense_step(student: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch) -> float:
    """The same as trl's GKD computes it: padded rows, [B, T, V] of both, masked at the end."""
    student.zero_grad(set_to_none=True)
    attention = _attention(batch)
    ours = student(input_ids=batch.input_ids, attention_mask=attention).logits
    with torch.no_grad():
        theirs = teacher(input_ids=batch.input_ids, attention_mask=attention).logits
    kl = F.kl_div(
        F.log_softmax(ours[:, :-1].float(), dim=-1),
        F.log_softmax(theirs[:, :-1].float(), dim=-1),
        reduction="none",
        log_target=True,
    )
    loss = kl[batch.completion_mask[:, 1:]].sum() / batch.kept
    loss.backward()
    return float(loss.detach())


def trl_step(
    peer: Trl, student: LlamaForCausalLM, teacher: LlamaForCausalLM, batch: Batch
) -> float:
    """The same by trl's own `GKDTrainer.compute_loss`, at beta 0, which is the forward KL."""
    labels = torch.where(batch.completion_mask, batch.input_ids, -100)
    inputs = {
        "input_ids": batch.input_ids,
        "attention_mask": _attention(batch),
        "labels": labels,
    }
    return trl_backward(peer, student, teacher, inputs)


def trl_backward(
    peer: Trl, student: LlamaForCausalLM, teacher: LlamaForCausalLM, inputs: dict[str, Tensor]
) -> float:
    """Loss and gradients by trl."""
    student.zero_grad(set_to_none=True)
    loss: Tensor = peer.gkd.compute_loss(peer.gkd_of(teacher, 0.0), student, inputs)
    loss.backward()
    return float(loss.detach())


def _attention(batch: Batch) -> Tensor:
    """[B, T] as a collator makes it: one on a row's own tokens."""
    mask = torch.zeros_like(batch.input_ids)
    for place, row in enumerate(batch.rows):
        mask[place, : len(row.ids)] = 1
    return mask
