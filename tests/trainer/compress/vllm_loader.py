"""Run by the engine's own Python: loads directories and tells what it makes of some ids.

One JSON line for each: `logprobs`, or `error`. vLLM is imported once. What should fail to load
comes last, since it can leave vLLM's process unfit for what loads.
"""

import gc
import json
import os
import sys
from typing import Any

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",
}
TO_COLLECT = 8
"""Engines."""
CACHE_BYTES = 1 << 24


def main(ids: list[int], asked: list[tuple[str, str, bool]]) -> None:
    """A line for each (directory, dtype, whether it should load), on a standard output that vLLM's
    own talk can't reach."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # vLLM collects nine times an engine, which with all its modules is most of a tiny one's time
    collect, gc.collect = gc.collect, lambda generation=2: 0
    for number, (directory, dtype, _) in enumerate(sorted(asked, key=lambda one: not one[2]), 1):
        print(json.dumps(load(directory, ids, dtype)), file=out, flush=True)
        clean()
        if number % TO_COLLECT == 0:
            collect()


def clean() -> None:
    """Room for the next engine in this process."""
    from vllm.distributed import cleanup_dist_env_and_memory

    cleanup_dist_env_and_memory()


def load(directory: str, ids: list[int], dtype: str) -> dict[str, Any]:
    """Log-probabilities of ids[1:], each given those before it."""
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt

    try:
        engine = LLM(
            directory,
            skip_tokenizer_init=True,
            enforce_eager=True,
            max_model_len=64,
            dtype=dtype,
            kv_cache_memory_bytes=CACHE_BYTES,
        )
        asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        (answer,) = engine.generate([TokensPrompt(prompt_token_ids=ids)], asked, use_tqdm=False)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what the test asks about
        return {"model": directory, "error": f"{type(error).__name__}: {error}"}
    found = answer.prompt_logprobs[1:]
    pairs = zip(found, ids[1:], strict=True)
    return {"model": directory, "logprobs": [float(known[one].logprob) for known, one in pairs]}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), json.loads(sys.argv[2]))
