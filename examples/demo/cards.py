"""Model cards: what the model is, how it was made, and the figures that were measured."""

from pathlib import Path

from transformers import LlamaForCausalLM

INTENT = {
    "teacher": (
        "The demo's teacher. It is trained on all three skills of the demo world: story "
        "arithmetic with the steps written out, tasks that only their demonstrations define, and "
        "compositions of list operations, one line per operation."
    ),
    "student-base": (
        "The demo's student before distillation. It writes the world's language and does single "
        "steps: one-step stories, looking up a word among demonstrations, one list operation. It "
        "was shown nothing that has to be composed or generalised from demonstrations."
    ),
}

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---

# {name}

{intent}

- Llama architecture, {parameters:,} parameters (tied embeddings), {size:,} bytes as bfloat16
  safetensors: width {hidden_size}, {num_hidden_layers} layers, {num_attention_heads} heads of
  {head_dim}, {num_key_value_heads} key-value heads, {intermediate_size} in the feed-forward part,
  {vocab_size} tokens (byte-level BPE, digits single), context {max_position_embeddings}.
- Trained {made}.
- Made for showing and testing distillation. Outside its world it knows nothing.

Measured by `python -m examples.demo.{measured_by}`: greedy decoding in transformers, bfloat16, on
held-out problems; how they are held out is told in `examples/demo/README.md`.

{table}
"""


def write_card(directory: Path, model: LlamaForCausalLM, table: str) -> None:
    """Write README.md into a model directory named after a role."""
    made = f"from scratch on generated text only: `python -m examples.demo.train {directory.name}`"
    fill(directory, model, table, INTENT[directory.name], made, "measure")


def fill(
    directory: Path,
    model: LlamaForCausalLM,
    table: str,
    intent: str,
    made: str,
    measured_by: str,
) -> None:
    """Write README.md into any model's directory."""
    card = CARD.format(
        **model.config.to_dict(),
        name=directory.name,
        intent=intent,
        made=made,
        measured_by=measured_by,
        parameters=model.num_parameters(),
        size=(directory / "model.safetensors").stat().st_size,
        table=table,
    )
    (directory / "README.md").write_text(card)
