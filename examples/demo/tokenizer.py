"""The demo's tokenizer: byte-level BPE trained on the world's own text, digits always single."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from examples.demo import world
from examples.demo.world.words import CATEGORIES, LABELS, LIST_WORDS, NAMES, THINGS

VOCABULARY_SIZE = 1280
PAD, END = "<|pad|>", "<|end|>"
SYSTEM, USER, ASSISTANT = "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = [PAD, SYSTEM, USER, ASSISTANT, END]
# A word takes the space before it along; digits and line breaks stand alone; the rest is bytes.
PIECES = r" ?\p{L}+|\d|\n| ?[^\s\p{L}\d]|\s"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
{{- '<|assistant|>' -}}
{%- generation -%}{{- message['content'] + '<|end|>' -}}{%- endgeneration -%}
{%- elif message['role'] in ('system', 'user') -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- else -%}
{{- raise_exception('This model knows the roles system, user and assistant only.') -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}
"""

# What a story's reasoning repeats of its sentences; the vocabulary counts those once.
NOTED = re.compile(r"(?:\d+|twice) [\w ]+[,.] ")

SYSTEM_PROMPTS = ("You are a helpful assistant.", "Answer with care.", "Be exact.")


def train_tokenizer(seed: int = 0, problems: int = 20_000) -> PreTrainedTokenizerFast:
    """Train the vocabulary on `problems` problems and on every word in each of its forms."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(random.Random(seed), problems), trainer)
    return wrap(tokenizer)


def wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Dress a raw tokenizer as a transformers one, with the chat template."""
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=1024,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    """Read the tokenizer saved in a model directory."""
    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(directory)
    return tokenizer


def render(problem: world.Problem) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as text, and the character ranges that a model is trained to write.

    It is the chat template written out, since that costs too much per row; a test compares them.
    """
    head = f"{SYSTEM}{problem.system}{END}" if problem.system else ""
    head += USER
    ranges = [(len(head) + start, len(head) + stop) for start, stop in problem.targets]
    prompt = f"{head}{problem.user}{END}{ASSISTANT}"
    text = f"{prompt}{problem.completion}{END}"
    return text, [*ranges, (len(prompt), len(text))]


def _corpus(rng: random.Random, problems: int) -> Iterator[str]:
    for _ in range(problems // 3):
        story = world.draw_story(
            rng,
            "train",
            rng.randint(1, 4),
            direct=rng.random() < 0.3,
            distractors=rng.randint(0, 2),
        )
        task = world.draw_icl(rng, "train", rng.randint(0, 8), rng.choice((2, 3)))
        order = world.draw_instruction(rng, "train", rng.randint(1, 3))
        yield f"{story.user}\n{NOTED.sub('', story.completion)}"
        for problem in (task, order):
            yield f"{problem.user}\n{problem.completion}"
    words = [*NAMES, *THINGS, *LABELS, *LIST_WORDS, *(word.upper() for word in LIST_WORDS)]
    spaced = [word for members in CATEGORIES.values() for word in members]
    for _ in range(200):
        yield "\n".join([*words, *(f" {word}" for word in words + spaced), *SYSTEM_PROMPTS])
