"""Commands about what lies in the store: upload, datasets, models."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from service.cli.client import Api
from service.cli.failure import bad_input
from service.cli.options import Cursor, Json, Limit, Screen, Url, Versions, connect, screen
from service.cli.recipes import send_file
from service.cli.rows import judge, say_row, show_rejected, show_rows
from service.cli.story import skills

datasets = typer.Typer(help="What teachers were asked and said.", no_args_is_help=True)
models = typer.Typer(help="Students, and what stages made of them.", no_args_is_help=True)

Reference = Annotated[
    str, typer.Argument(metavar="REF", help="An id, name or name@version.", show_default=False)
]
Out = Annotated[Path | None, typer.Option(help="Where to put it.")]
LocalFile = Annotated[Path, typer.Argument(help="A file of this machine.", show_default=False)]


def upload(
    file: LocalFile,
    purpose: Annotated[
        str, typer.Option(help="seeds, pool, evaluation or dataset; decides how it is checked.")
    ] = "seeds",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Upload a file; it is checked line by line."""
    out, api = screen(as_json), connect(url)
    if not file.is_file():
        raise bad_input("No such file", f"there is no file {file}")
    found = api.get(f"/files/{send_file(api, file, purpose, out.say)}")
    if as_json:
        out.document(found)


def list_command(kind: str, columns: tuple[str, ...]) -> Callable[..., None]:
    """The command that lists artifacts of a kind, with these facts of their summaries."""

    def listed(
        name: Versions = None,
        limit: Limit = 50,
        cursor: Cursor = None,
        as_json: Json = False,
        url: Url = None,
    ) -> None:
        page = connect(url).get(f"/{kind}", name=name, limit=limit, cursor=cursor)
        _show_page(screen(as_json), page, kind, columns)

    listed.__doc__ = f"List {kind}, newest first."
    return listed


datasets.command("list")(list_command("datasets", ("accepted", "rejected", "kinds")))


@datasets.command("show")
def show_dataset(
    reference: Reference,
    rows: Annotated[int, typer.Option(min=0, max=100, help="Rows to show.")] = 2,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show a dataset's counts and a few of its rows."""
    api, out = connect(url), screen(as_json)
    found = api.get(f"/datasets/{reference}")
    sample = api.get(f"/datasets/{reference}/rows", limit=rows)["rows"] if rows else []
    if as_json:
        out.document(found | {"rows": sample})
        return
    _describe(out, found)
    for row in sample:
        say_row(out, row)


datasets.command("rows")(show_rows)
datasets.command("rejected")(show_rejected)
datasets.command("review")(judge)


@datasets.command("diff")
def compare_datasets(
    old: Annotated[str, typer.Argument(help="Such as stories@1.", show_default=False)],
    new: Annotated[str, typer.Argument(help="Such as stories@2.", show_default=False)],
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Show what one version's accepted rows have in place of another's."""
    found, out = connect(url).get(f"/datasets/{new}/diff", base=old), screen(as_json)
    if as_json:
        out.document(found)
        return
    for name in ("same", "added", "removed", "changed"):
        out.say(f"{name:<8} {found[name]:,}")
    for name in ("added_ids", "changed_ids"):
        if found[name]:
            out.say(f"{name.removesuffix('_ids')}: {', '.join(found[name])}")


@datasets.command("import")
def import_dataset(
    source: Annotated[Path, typer.Argument(help="JSONL, Parquet or a directory.")],
    name: Annotated[
        str | None, typer.Option(help="What to call it; its file name if left out.")
    ] = None,
    kind: Annotated[str, typer.Option(help="What its rows teach: icl, cot or if.")] = "if",
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Import a dataset made elsewhere; rows need `prompt` and `completion`."""
    out, api = screen(as_json), connect(url)
    if not source.exists():
        raise bad_input("No such file", f"there is no {source}")
    wanted: dict[str, Any] = {"name": name or source.stem, "kind": kind}
    if source.is_dir():
        wanted["path"] = str(source.resolve())
    else:
        wanted["file"] = send_file(api, source, "dataset", out.say)
    found = api.post("/datasets/import", wanted)
    if as_json:
        out.document(found)
    else:
        _describe(out, found)


@datasets.command("download")
def download_dataset(
    reference: Reference, out: Out = None, as_json: Json = False, url: Url = None
) -> None:
    """Download a dataset; `datasets.load_dataset` opens the directory."""
    api = connect(url)
    found = api.get(f"/datasets/{reference}")
    target = out or Path(f"{found['name']}-v{found['version']}")
    download(api, f"/datasets/{reference}/download", target)
    _say_place(screen(as_json), found, target)


@datasets.command("push")
def push_dataset(
    reference: Reference,
    repo: Annotated[str, typer.Option(help="owner/name on the hub.", show_default=False)],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Push a dataset to the Hugging Face hub, rejected rows and signal too. The token is that of
    HF_TOKEN."""
    # Late: the hub's client takes a while.
    from service import hub

    api, out = connect(url), screen(as_json)
    try:
        hub.check_repo(repo)
        client = hub.open_hub()
        found = api.get(f"/datasets/{reference}")
        message = f"{found['name']} version {found['version']} ({found['id']})"
        with tempfile.TemporaryDirectory(prefix="retort-push-") as folder:
            download(api, f"/datasets/{reference}/download", Path(folder))
            place = hub.push(client, Path(folder), repo, private=private, message=message)
    except hub.PushError as error:
        raise bad_input(error.title, error.detail) from error
    if as_json:
        out.document(found | {"pushed": place})
    else:
        out.say(f"{message} is at {place}")


models.command("list")(list_command("models", ("role", "method")))


@models.command("show")
def show_model(reference: Reference, as_json: Json = False, url: Url = None) -> None:
    """Show a model: where it lies, what it was made from, how it was measured."""
    found, out = connect(url).get(f"/models/{reference}"), screen(as_json)
    if as_json:
        out.document(found)
    else:
        _describe(out, found)


@datasets.command("lineage")
def show_dataset_lineage(reference: Reference, as_json: Json = False, url: Url = None) -> None:
    """Show what a dataset was made from, and what was made from it."""
    _lineage(connect(url), screen(as_json), f"/datasets/{reference}/lineage")


@models.command("lineage")
def show_model_lineage(reference: Reference, as_json: Json = False, url: Url = None) -> None:
    """Show what a model was made from, and what was made from it."""
    _lineage(connect(url), screen(as_json), f"/models/{reference}/lineage")


@models.command("download")
def download_model(
    reference: Reference, out: Out = None, as_json: Json = False, url: Url = None
) -> None:
    """Download a model; transformers opens the directory."""
    api = connect(url)
    found = api.get(f"/models/{reference}")
    target = out or Path(f"{found['name']}-v{found['version']}")
    download(api, f"/models/{reference}/download", target)
    _say_place(screen(as_json), found, target)


def _show_page(out: Screen, page: dict[str, Any], kind: str, columns: tuple[str, ...]) -> None:
    if out.json:
        out.document(page)
        return
    table = Table(box=None, header_style="bold")
    for column in ("id", "name", "version", "bytes", *columns):
        table.add_column(column)
    for each in page["artifacts"]:
        facts = [_short(each["summary"].get(column)) for column in columns]
        table.add_row(each["id"], each["name"], str(each["version"]), f"{each['bytes']:,}", *facts)
    out.console.print(table if page["artifacts"] else f"no {kind}")
    out.say_more(page)


def _describe(out: Screen, found: dict[str, Any]) -> None:
    out.say(f"{found['kind']} {found['id']}  {found['name']} version {found['version']}")
    out.say(f"  location  {found['location']}")
    out.say(f"  bytes     {found['bytes']:,}   sha256 {found['sha256']}")
    out.say(f"  made from {', '.join(found['inputs']) or '-'}   by {found['job_id'] or '-'}")
    for name, value in found["summary"].items():
        if isinstance(value, dict) and name in ("stage", "card"):
            continue  # Long, and told in full by --json and by the report.
        if isinstance(value, dict) and name == "measurement":
            out.say(f"  accuracy  {skills(value['skills'])}")
            out.say(f"  size      {value['parameters']:,} parameters")
            continue
        if value not in (None, {}, []):
            out.say(f"  {name:<9} {_short(value)}")


def _lineage(api: Api, out: Screen, path: str) -> None:
    found = api.get(path)
    if out.json:
        out.document(found)
        return
    table = Table(box=None, header_style="bold")
    for column in ("id", "kind", "name", "version", "made by", "from"):
        table.add_column(column, overflow="fold")
    for one in found:
        version = "" if one["version"] is None else str(one["version"])
        made = (one["kind"], one["name"], version, one["job_id"] or "")
        table.add_row(one["id"], *made, ", ".join(one["inputs"]))
    out.console.print(table)


def _short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def download(api: Api, path: str, target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise bad_input("The place is taken", f"{target} isn't empty; give another with --out")
    with tempfile.NamedTemporaryFile(suffix=".zip") as archive:
        api.save(path, Path(archive.name))
        with zipfile.ZipFile(archive.name) as files:
            files.extractall(target)


def _say_place(out: Screen, found: dict[str, Any], target: Path) -> None:
    if out.json:
        out.document(found | {"out": str(target)})
    out.say(f"{found['id']} is in {target}")
