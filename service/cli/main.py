"""`retort`: all commands, and how their failures end."""

import json
import sys

import typer
from rich.console import Console

from service.cli import (
    artifacts,
    chat,
    control,
    doctor,
    evaluate,
    files,
    health,
    jobs,
    keys,
    reports,
    schedules,
    stack,
    teachers,
    train,
    upkeep,
)
from service.cli.failure import INTERRUPTED, Failure

app = typer.Typer(
    name="retort",
    help="Turns a large teacher model into a small student that does the same job.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done, 1 the job failed, 2 bad input, 3 the API can't be reached.",
)

app.command("up")(stack.up)
app.command("down")(stack.down)
app.command("worker")(stack.worker)
app.command("doctor")(doctor.doctor)
app.command("status")(health.status)
app.command("login")(keys.login_link)
app.command("run")(jobs.run)
app.command("serve")(jobs.serve)
app.add_typer(control.jobs_app, name="jobs")
app.command("preview")(control.preview)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("retry")(control.retry)
app.command("clone")(control.clone)
app.command("chat")(chat.chat)
app.command("watch")(jobs.watch)
app.command("log")(jobs.show_log)
app.command("cancel")(jobs.cancel)
app.command("upload")(artifacts.upload)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(files.app, name="files")
app.command("report")(reports.report)
app.command("reports")(reports.list_reports)
app.add_typer(artifacts.datasets, name="datasets")
app.add_typer(artifacts.models, name="models")
app.add_typer(teachers.app, name="teachers")
app.add_typer(keys.app, name="keys")
app.add_typer(schedules.app, name="schedules")
app.command("gc")(upkeep.collect_garbage)
app.command("backup")(upkeep.back_up)
app.command("restore")(upkeep.bring_back)


def main() -> None:
    """The entry point. Exits with a code that says how it ended."""
    try:
        app()
    except Failure as failure:
        report_failure(failure, as_json="--json" in sys.argv)
        sys.exit(failure.code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def report_failure(failure: Failure, *, as_json: bool) -> None:
    """Say what is wrong: to people on standard error, to programs on standard output."""
    if as_json:
        sys.stdout.write(json.dumps({"error": failure.document}, ensure_ascii=False) + "\n")
        return
    console = Console(stderr=True)
    for line in failure.lines():
        console.print(line, markup=False, highlight=False, soft_wrap=True)
