"""distilabel, the peer of whole jobs: measured beside where an environment of its own has it.

    python -m venv .venv-bench
    .venv-bench/bin/pip install 'distilabel[openai]==1.5.3' 'setuptools<81' requests

python -P benchmarks/distilabel_peer.py, told by JSON on its input what to ask, asks by distilabel;
nothing of Retort is imported there.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

ENVIRONMENT = Path(__file__).resolve().parent.parent / ".venv-bench"


@dataclass(frozen=True)
class Asked:
    """What its pipeline made. `digest` is `asking.Heard`'s; `seconds` are the pipeline's alone."""

    answers: int
    digest: int
    characters: int
    seconds: float


def stand_beside(found: dict[str, float], measure: Callable[[int], float], least: float) -> bool:
    """Measure it at the rows of what was `found` of ours, add what came of that, and say whether
    ours is `least` times as fast; True where it isn't installed."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        return True
    found["distilabel"] = measure(int(found["rows"]))
    found["times_distilabel"] = found["ours"] / found["distilabel"]
    return found["times_distilabel"] >= least


def ask_all(
    url: str, model: str, prompts: Iterable[str], sampling: dict[str, Any], window: int
) -> Asked:
    """The prompts' answers by a pipeline of one `TextGeneration`, `window` rows a batch: it asks
    for the rows of a batch side by side. Raises CalledProcessError."""
    job: dict[str, Any] = {"url": url, "model": model, "prompts": list(prompts)}
    job |= {"sampling": sampling, "window": window}
    command = [str(ENVIRONMENT / "bin" / "python"), "-P", __file__]
    run = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=True)
    return Asked(**json.loads(run.stdout.splitlines()[-1]))


def main() -> None:
    """In the other environment."""
    from distilabel.models import OpenAILLM  # type: ignore[import-not-found]
    from distilabel.pipeline import Pipeline  # type: ignore[import-not-found]
    from distilabel.steps import LoadDataFromDicts  # type: ignore[import-not-found]
    from distilabel.steps.tasks import TextGeneration  # type: ignore[import-not-found]

    job = json.load(sys.stdin)
    with Pipeline(name="peer") as pipeline:
        rows = [{"instruction": prompt} for prompt in job["prompts"]]
        load = LoadDataFromDicts(data=rows, batch_size=job["window"])
        sampling = {
            "max_new_tokens": job["sampling"].get("max_tokens", 128),
            "temperature": job["sampling"]["temperature"],
        }
        teacher = OpenAILLM(
            model=job["model"],
            base_url=job["url"],
            api_key="none",
            generation_kwargs=sampling,
        )
        ask = TextGeneration(
            llm=teacher,
            input_batch_size=job["window"],
            add_raw_output=False,
            add_raw_input=False,
        )
        load >> ask
    begun = time.perf_counter()
    made = pipeline.run(use_cache=False)
    seconds = time.perf_counter() - begun
    texts = [text for text in made["default"]["train"]["generation"] if text is not None]
    digest = sum(crc32(text.encode()) for text in texts) % 2**64
    characters = sum(map(len, texts))
    print(json.dumps(vars(Asked(len(texts), digest, characters, seconds))))


if __name__ == "__main__":
    main()
