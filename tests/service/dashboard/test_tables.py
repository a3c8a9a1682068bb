"""Every row of every long table is on some page."""

import html
import re
from pathlib import Path

import httpx
import pytest

from service import keys
from service.dashboard import datasets, models
from service.dashboard import keys as keys_page
from service.dashboard import teachers as teachers_page
from service.keys import NewKey
from service.site import Site
from tests.service.given import add_file, add_teacher

COUNT = 5


def fill(site: Site, folder: Path, kind: str) -> list[str]:
    """Names of five rows."""
    names = [f"row-{number}" for number in range(COUNT)]
    for name in names:
        match kind:
            case "teachers":
                add_teacher(site, name)
            case "keys":
                keys.create(site, NewKey(name=name, scopes=("admin",)))
            case "files":
                add_file(site, "{}\n", name)
            case "reports":
                (folder / name).mkdir()
                with site.sessions.writing.begin() as session:
                    site.store.publish(
                        session, "report", name, folder / name, summary={}, inputs=[]
                    )
    return names


@pytest.mark.parametrize(
    ("kind", "path", "size"),
    [
        ("teachers", "/teachers", (teachers_page, "PAGE")),
        ("keys", "/keys", (keys_page, "PAGE")),
        ("files", "/datasets", (datasets, "FILES")),
        ("reports", "/models", (models, "REPORTS")),
    ],
)
async def test_a_table_is_read_to_its_end(
    site: Site,
    browser: httpx.AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    path: str,
    size: tuple[object, str],
) -> None:
    names = fill(site, tmp_path, kind)
    if kind == "keys":
        _, key = keys.create(site, NewKey(name="me", scopes=("admin",)))
        await browser.post("/login", data={"key": key})
    monkeypatch.setattr(*size, 2)
    pages: list[set[str]] = []
    place: str | None = path
    while place is not None and len(pages) < COUNT:
        text = (await browser.get(place)).text
        pages.append(set(re.findall(r"row-\d", text)))
        found = re.search(r'rel="next" href="([^"]+)"', text)
        place = path + html.unescape(found[1]) if found else None
    assert len(pages) == 3
    assert max(map(len, pages)) == 2
    assert set.union(*pages) == set(names)
