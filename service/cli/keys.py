"""Commands about who is let in. They work on the database itself: the first key is made before an
API can be asked for it, and whoever may read the database may do everything anyway. With `--url`
they ask an API, under an admin's key."""

from typing import Annotated, Any, TypeVar

import typer
from pydantic import ValidationError
from rich.table import Table

from prompts.record import Frozen
from service import keys, login, quotas, runtime
from service.cli.failure import bad_input
from service.cli.installation import installation
from service.cli.options import Json, connect, load_settings, screen
from service.keys import NewKey
from service.quotas import Limits
from service.tables import now
from service.views import KeyDetail, KeyView, MadeKey, key_detail, key_view, made_key

Wanted = TypeVar("Wanted", bound=Frozen)

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="Its id.", show_default=False)]
RequestsPerMinute = Annotated[int | None, typer.Option(help="Most requests a minute.")]
JobsAtOnce = Annotated[int | None, typer.Option(help="Most unfinished jobs at once.")]
TokensPerDay = Annotated[int | None, typer.Option(help="Most tokens of teachers a day (UTC).")]
KeysUrl = Annotated[
    str | None,
    typer.Option("--url", help="Ask this API, with an admin's RETORT_API_KEY, not the database."),
]

app = typer.Typer(help="API keys of this installation.", no_args_is_help=True)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="For whom or what it is.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="read, submit, train or admin; may be given again. Default: read, submit."
        ),
    ] = None,
    requests_per_minute: RequestsPerMinute = None,
    jobs_at_once: JobsAtOnce = None,
    tokens_per_day: TokensPerDay = None,
    as_json: Json = False,
    url: KeysUrl = None,
) -> None:
    """Make a key and show it, this once. With the first one, the API asks everybody for a key."""
    out = screen(as_json)
    limits = _limits(requests_per_minute, jobs_at_once, tokens_per_day)
    fields = {"name": name, "limits": limits} | ({"scopes": scope} if scope else {})
    wanted = _checked(NewKey, fields)
    if url is not None:
        body = wanted.model_dump(mode="json", exclude_unset=True)
        made = MadeKey.model_validate(connect(url).post("/keys", body))
    else:
        with installation() as site:
            made = made_key(*keys.create(site, wanted))
    if as_json:
        out.document(made.model_dump(mode="json"))
    out.say(f"{made.id} {made.name} ({', '.join(made.scopes)})")
    out.say(made.key)
    out.say("Keep it: nobody can show it again. `export RETORT_API_KEY=...` gives it to retort.")


@app.command("list")
def list_keys(as_json: Json = False, url: KeysUrl = None) -> None:
    """List keys, newest first."""
    if url is not None:
        found = [KeyView.model_validate(key) for key in connect(url).all("/keys", "keys")]
    else:
        with installation() as site:
            found = [key_view(key) for key in keys.listing(site)]
    out = screen(as_json)
    if as_json:
        out.document([key.model_dump(mode="json") for key in found])
        return
    table = Table(box=None, header_style="bold")
    for column in ("key", "name", "scopes", "limits", "made", "last used", ""):
        table.add_column(column, overflow="fold")
    for key in found:
        table.add_row(*_cells(key))
    out.console.print(table if found else "no keys: this machine alone is served, without any")


@app.command("show")
def show(key_id: KeyId, as_json: Json = False, url: KeysUrl = None) -> None:
    """Show a key, its limits and what it has used of them."""
    if url is not None:
        found = KeyDetail.model_validate(connect(url).get(f"/keys/{key_id}"))
    else:
        with installation() as site, site.sessions.reading() as session:
            key = keys.get(session, key_id)
            found = key_detail(key, quotas.usage(session, key, now()))
    out = screen(as_json)
    if as_json:
        out.document(found.model_dump(mode="json"))
    out.say(f"{found.id} {found.name} ({', '.join(found.scopes)})")
    out.say(f"  {found.open_jobs:,} unfinished jobs{_of(found.jobs_at_once)}")
    out.say(f"  {found.tokens_today:,} tokens today{_of(found.tokens_per_day)}")
    out.say(f"  requests a minute{_of(found.requests_per_minute)}")


@app.command("limit")
def limit(
    key_id: KeyId,
    requests_per_minute: RequestsPerMinute = None,
    jobs_at_once: JobsAtOnce = None,
    tokens_per_day: TokensPerDay = None,
    as_json: Json = False,
    url: KeysUrl = None,
) -> None:
    """Set a key's limits; 0 lifts one, and what isn't given stays."""
    wanted = _checked(Limits, _limits(requests_per_minute, jobs_at_once, tokens_per_day))
    if url is not None:
        body = wanted.model_dump(exclude_unset=True)
        found = KeyView.model_validate(connect(url).patch(f"/keys/{key_id}/limits", body))
    else:
        with installation() as site:
            found = key_view(keys.limit(site, key_id, wanted))
    out = screen(as_json)
    if as_json:
        out.document(found.model_dump(mode="json"))
    out.say(f"{found.id} {found.name}: {_in_words(found) or 'no limits'}")


@app.command("revoke")
def revoke(key_id: KeyId, as_json: Json = False, url: KeysUrl = None) -> None:
    """Make a key useless from now on."""
    if url is not None:
        found = KeyView.model_validate(connect(url).post(f"/keys/{key_id}/revoke"))
    else:
        with installation() as site:
            found = key_view(keys.revoke(site, key_id))
    out = screen(as_json)
    if as_json:
        out.document(found.model_dump(mode="json"))
    out.say(f"{found.id} {found.name} is revoked")


def login_link(
    as_json: Json = False,
    given: Annotated[
        str | None,
        typer.Option("--url", help="Where the browser reaches the API, if not as retort does."),
    ] = None,
) -> None:
    """Print a link that opens the dashboard, once. Signed with the installation's secret."""
    settings, out = load_settings(), screen(as_json)
    up = runtime.read(settings.data_dir)
    url = up.url if up is not None and runtime.alive(up) else settings.api_url
    link = login.link(settings, (given or url).rstrip("/"))
    if as_json:
        out.document({"link": link})
    out.say(link)
    out.say(f"Good once, for {login.LINK_S // 60} minutes.")


def _limits(requests: int | None, jobs: int | None, tokens: int | None) -> dict[str, int | None]:
    """Those that were given; 0 is none."""
    given = {
        "requests_per_minute": requests,
        "jobs_at_once": jobs,
        "tokens_per_day": tokens,
    }
    return {name: value or None for name, value in given.items() if value is not None}


def _checked(model: type[Wanted], fields: dict[str, Any]) -> Wanted:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        errors = [
            {"location": ".".join(map(str, one["loc"])), "message": one["msg"]}
            for one in error.errors()
        ]
        raise bad_input("No such key can be made", errors=errors) from error


def _cells(key: KeyView) -> tuple[str, ...]:
    used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
    made = f"{key.created_at:%Y-%m-%d %H:%M}"
    return (
        key.id,
        key.name,
        ", ".join(key.scopes),
        _in_words(key),
        made,
        used,
        "revoked" if key.revoked_at else "",
    )


def _in_words(key: KeyView) -> str:
    limits = (
        (key.requests_per_minute, "requests a minute"),
        (key.jobs_at_once, "jobs"),
        (key.tokens_per_day, "tokens a day"),
    )
    return ", ".join(f"{most:,} {noun}" for most, noun in limits if most is not None)


def _of(most: int | None) -> str:
    return ", no limit" if most is None else f", {most:,} at most"
