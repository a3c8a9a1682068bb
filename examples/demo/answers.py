"""Ask a model in transformers, greedily and in batches, and grade what it writes."""

import re

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.demo import world

CLOSING = re.compile(r"The answer is (-?\d+)\.$")


def ask(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    problems: list[world.Problem],
    *,
    batch_rows: int = 100,
    max_new_tokens: int = 96,
) -> list[str]:
    """The greedy completion of each problem, in their order."""
    model.eval()
    # Rows of like length share a batch; short prompts would otherwise drag padding along.
    order = sorted(range(len(problems)), key=lambda index: len(problems[index].user))
    texts = [""] * len(problems)
    for start in range(0, len(order), batch_rows):
        chosen = order[start : start + batch_rows]
        prompts = [prompt_of(problems[index], tokenizer) for index in chosen]
        for index, text in zip(
            chosen, _complete(model, tokenizer, prompts, max_new_tokens), strict=True
        ):
            texts[index] = text
    return texts


def prompt_of(problem: world.Problem, tokenizer: PreTrainedTokenizerFast) -> str:
    """The rendered conversation up to where the assistant starts to write."""
    messages = [{"role": "user", "content": problem.user}]
    if problem.system:
        messages.insert(0, {"role": "system", "content": problem.system})
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def is_right(problem: world.Problem, text: str) -> bool:
    """Numeric for stories (the closing sentence counts), exact last line for the rest."""
    if problem.skill == "cot":
        closing = CLOSING.search(text.strip())
        return closing is not None and closing[1] == problem.answer
    return text.strip().split("\n")[-1] == problem.answer


@torch.inference_mode()
def _complete(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[str],
    max_new_tokens: int,
) -> list[str]:
    encoded = tokenizer(
        prompts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    written = model.generate(  # type: ignore[misc]
        input_ids=encoded.input_ids,
        attention_mask=encoded.attention_mask,
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return tokenizer.batch_decode(
        written[:, encoded.input_ids.shape[1] :], skip_special_tokens=True
    )
