"""python -m benchmarks NAME [--quick] [--json]"""

import argparse
import sys
from functools import partial
from pathlib import Path

from benchmarks import (
    agreement,
    factorize,
    ingest,
    instructions,
    kd_loss,
    kd_step,
    novelty,
    orchestrate,
    prefix,
    qat,
    quality,
    quality_peer,
    rollout,
    service,
    serving,
    signal,
    size,
    stages,
    teacher,
    ways,
)
from benchmarks.peer import NoPeerError
from benchmarks.result import Benchmark, as_json, as_text

BENCHMARKS: dict[str, Benchmark] = {
    "agreement": agreement.run,
    "factorize": factorize.run,
    "ingest": ingest.run,
    "instructions": instructions.run,
    "kd_loss": kd_loss.run,
    "kd_step": kd_step.run,
    "novelty": novelty.run,
    "orchestrate": orchestrate.run,
    "prefix": prefix.run,
    "qat": qat.run,
    "quality": quality.run,
    "quality_peer": quality_peer.run,
    "rollout": rollout.run,
    "service": service.run,
    "serving": serving.run,
    "signal": signal.run,
    "size": size.run,
    "stages": stages.run,
    "teacher": teacher.run,
    "ways": ways.run,
}


def main() -> None:
    """Run the named benchmarks, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", default=sorted(BENCHMARKS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller inputs")
    parser.add_argument("--json", action="store_true", help="one JSON line each")
    parser.add_argument("--seeds", type=Path, metavar="FILE", help="novelty's tasks, JSON Lines")
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(BENCHMARKS):
        parser.error(f"no benchmark named {unknown}; there are {sorted(BENCHMARKS)}")
    chosen = dict(BENCHMARKS)
    if arguments.seeds is not None:
        chosen["novelty"] = partial(novelty.run, seeds=arguments.seeds)
    for name in arguments.name:
        try:
            result = chosen[name](arguments.quick)
        except NoPeerError as error:
            print(f"{name}: no result. {error}", file=sys.stderr, flush=True)
            continue
        print(as_json(result) if arguments.json else as_text(result), flush=True)


if __name__ == "__main__":
    main()
