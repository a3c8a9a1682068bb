"""A FAKE of `python -m trainer` for tests of its parent: MODE decides how it ends.

python fake_trainer.py MODE {train,compress,evaluate,report} ...
"""

import argparse
import json
import signal
import sys
import time
from pathlib import Path


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("mode", "command"):
        parser.add_argument(name)
    for name in ("--spec", "--out", "--model", "--chain"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    print(f"fake {given.command} as {given.mode}", file=sys.stderr, flush=True)
    if given.command == "evaluate":
        return evaluate(given.mode, given.model, given.out)
    if given.command == "report":
        return report(given.chain, given.out)
    return {"train": train, "compress": compress}[given.command](given.mode, given.out)


def train(mode: str, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint"
    first = int(checkpoint.read_text()) if checkpoint.exists() else 0
    say("phase", name="train", detail=f"from step {first}")
    for step in range(first, 3):
        say("step", step=step, loss=1.0 / (step + 1), tokens_per_s=100.0)
    say("validation", step=3, loss=0.25)
    if mode in ("bad", "bad-launched"):
        say("error", title="The vocabularies differ", detail="Choose another teacher.")
        return 2 if mode == "bad" else 1
    if mode == "crash" or (mode == "crash-once" and first == 0):
        checkpoint.write_text("2")
        print("Traceback: the last words of a crash", file=sys.stderr)
        return 1
    if mode == "lost-once" and first == 0:
        checkpoint.write_text("2")
        say("error", title="the student's vLLM is gone", detail="Run it again.", again=True)
        return 1
    if mode == "terminated":
        return 143
    if mode in ("wait", "stubborn"):
        wait(mode, checkpoint)
    model(out / "model", {"steps": 3, "seconds": 1.5, "dataset": {"rows": 7, "too_long": 1}})
    say("done", result={"model": str(out / "model")})
    return 0


def wait(mode: str, checkpoint: Path) -> None:
    """Until SIGTERM, which writes a checkpoint and exits with 143; or for ever."""

    def leave(*_: object) -> None:
        checkpoint.write_text("3")
        sys.exit(143)

    signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else leave)
    (checkpoint.parent / "waiting").touch()
    while True:
        time.sleep(60)


def compress(mode: str, out: Path) -> int:
    source = "/somewhere/student"
    for index, kind in enumerate(("wanda", "svd")):
        target = out / f"stage-{index}-{kind}"
        model(target / "model", {})
        passed = not (mode == "gate" and kind == "svd") and mode != "swept"
        found = stage(index, kind, source, str(target / "model"), passed)
        if mode == "swept" and kind == "wanda":
            found["sweep"] = {"stage": 0, "field": "sparsity", "ratio": 0.9}
        if mode == "unreadable" and kind == "svd":
            found["seconds"] = None
        (target / "report.json").write_text(json.dumps(found))
        say("stage", index=index, kind=kind, report=found)
        if mode == "bad":
            say("error", title="the disk is full", detail="Free some.")
            return 2
        source = str(target / "model")
    if mode == "gate":
        say("warning", detail="stage 2 (ptq) was left out")
    return 0 if mode == "ok" else 3


def stage(index: int, kind: str, source: str, model_path: str, passed: bool) -> dict[str, object]:
    shape = {"parameters": 10, "nonzero": 5, "weight_bytes": 20, "layers": 1}
    return {
        "index": index,
        "kind": kind,
        "digest": "d",
        "passed": passed,
        "failures": [] if passed else ["accuracy fell by 20 points, 10 are allowed"],
        "spec": {"kind": kind},
        "source": source,
        "model": model_path,
        "before": {"path": source, "shape": shape, "measurement": measurement(source)},
        "after": {"path": model_path, "shape": shape, "measurement": measurement(model_path)},
        "calibration_rows": 1,
        "seconds": 1.0,
        "measuring_seconds": 1.0,
    }


def evaluate(mode: str, path: Path, out: Path) -> int:
    if mode == "unmeasured":
        say("error", title="line 1 is no evaluation row", detail="It has no prompt.")
        return 2
    out.write_text(json.dumps(measurement(str(path))))
    say("accuracy", model=str(path), skills=measurement(str(path))["skills"])
    return 0


def measurement(path: str) -> dict[str, object]:
    return {
        "model": path,
        "skills": {"cot": {"correct": 5, "n": 10, "low": 0.2, "high": 0.8}},
        "parameters": 10,
        "weight_bytes": 20,
        "generated_tokens": 100,
        "seconds": 1.0,
        "tokens_per_s": 100.0,
    }


def report(chain: Path, out: Path) -> int:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(f"# {json.loads(chain.read_text())['recipe']['name']}\n")
    (out / "report.html").write_text("<p>fake</p>")
    return 0


def model(target: Path, card: dict[str, object]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text("{}")
    (target / "retort.json").write_text(json.dumps(card))


if __name__ == "__main__":
    sys.exit(main())
