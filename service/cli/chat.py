"""`retort chat`: a question to a teacher or a served model."""

import sys
from typing import Annotated, Any

import typer

from service.cli.options import Json, Url, connect, screen


def chat(
    model: Annotated[
        str, typer.Argument(help="A teacher, or a model that is served.", show_default=False)
    ],
    prompt: Annotated[
        str, typer.Argument(help="The question; from standard input if left out.")
    ] = "-",
    system: Annotated[str | None, typer.Option(help="A system message before it.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="The server's own if left out.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Most new tokens.")] = None,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Ask a teacher or a served model, by the path of `/v1/chat/completions`."""
    asked = sys.stdin.read() if prompt == "-" else prompt
    told = [("system", system), ("user", asked)]
    given = {"temperature": temperature, "max_tokens": max_tokens}
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": role, "content": text} for role, text in told if text is not None],
        **{name: value for name, value in given.items() if value is not None},
    }
    answer, out = connect(url).chat(body), screen(as_json)
    if as_json:
        out.document(answer)
    out.say(answer["choices"][0]["message"].get("content") or "")
