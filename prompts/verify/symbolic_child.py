"""The process that compares expressions: JSON lines in, JSON lines out, limited by its system."""

import json
import math
import resource
import sys

from math_verify import parse, verify

MEMORY_BYTES = 4 << 30


def main() -> None:
    """Reads pairs until its parent closes the pipe."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        pair = json.loads(line)
        _limit_cpu(pair["cpu_s"])
        print(json.dumps(_compared(pair["answer"], pair["gold"])), flush=True)


def _limit_cpu(seconds: float) -> None:
    """The parent kills at the same bound; this one holds where the parent is gone."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def _compared(answer: str, gold: str) -> dict[str, object]:
    try:
        return {"same": any(_same(form(answer), form(gold)) for form in (_as_latex, str))}
    except (MemoryError, RecursionError) as error:
        return {"error": f"the expression is too large ({type(error).__name__})"}


def _same(answer: str, gold: str) -> bool:
    parsed = [parse(text, parsing_timeout=None) for text in (gold, answer)]
    return bool(all(parsed) and verify(*parsed, timeout_seconds=None))


def _as_latex(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text.strip().rstrip('.')}$"


if __name__ == "__main__":
    main()
