"""Pages as tests look at them."""

import re
from html.parser import HTMLParser

import httpx


class Seen(HTMLParser):
    """What a browser would run or fetch, and the text it would show."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


async def token(browser: httpx.AsyncClient, path: str = "/keys") -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', (await browser.get(path)).text)
    assert found is not None
    return found.group(1)
