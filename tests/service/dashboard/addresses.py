"""An address of every page, by the app's own routes: none that is added can be left out."""

from fastapi.routing import APIRoute

from service.dashboard import ROUTERS, fields

NO_PAGES = ("/jobs/{job_id}/stream", "/jobs/{job_id}/curve")
"""What pages ask for."""
PARTS = "/live"
"""How the addresses of pages' parts end."""
MEANT = {"/jobs": ("train", "build", "compress", "failed"), "/models": ("model", "small")}
"""What the parameter of a page names, where that is not one thing of the page's noun; the first
alone on the pages below it."""
QUERIES = {
    "/": ("",),
    "/jobs": ("", "?state=failed&kind=recipe"),
    "/jobs/new": tuple(f"?kind={kind}" for kind in fields.FORMS),
    "/jobs/{job_id}/samples": ("", "?step=100"),
    "/datasets/{reference}": ("", "?part=rejected", "?q=script", "?q=nowhere-at-all"),
    "/datasets/{reference}/row": ("?id=story-0001", "?id=story-0003"),
    "/datasets/{reference}/diff": ("", "?base={earlier}&show=changed"),
    "/playground": ("", "?a=quick&prompt=%3Cscript%3E"),
}


def addresses(ids: dict[str, str]) -> list[str]:
    """Of every page, and of some in more than one state; `ids` are those of `world.fill`. A
    parameter that nothing is known of is a KeyError: name what it means above."""
    return [
        path + query.format(**ids)
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute) and "GET" in route.methods and route.path not in NO_PAGES
        for path in _filled(route.path, ids)
        for query in QUERIES.get(route.path, ("",))
    ]


def _filled(path: str, ids: dict[str, str]) -> list[str]:
    head, brace, rest = path.partition("/{")
    if not brace:
        return [path]
    noun = head.removeprefix("/").removesuffix("s")
    tail = rest.partition("}")[2]
    names = MEANT.get(head, (noun,))
    return [f"{head}/{ids[name]}{tail}" for name in (names[:1] if tail else names)]
