import json
from typing import get_args

import pytest

from service import retention
from service.cli import upkeep
from service.site import Site
from tests.service.cli.conftest import Cli
from tests.service.test_retention import write

pytestmark = pytest.mark.servers


def test_gc_tells_and_deletes(cli: Cli, api: str, site: Site) -> None:
    half = write(site.store.root / "incoming" / "file-half")
    said = cli("gc", "--dry-run", "--url", api)
    assert "1 left behind by a crash, 4 bytes" in said.out
    assert "would be deleted" in said.out
    assert half.exists()
    assert json.loads(cli("gc", "--json", "--url", api).out)["bytes"] == 4
    assert not half.exists()
    assert cli("gc", "--url", api).out == "nothing to delete\n"


def test_all_that_may_be_deleted_has_words() -> None:
    assert set(upkeep.WORDS) == set(get_args(retention.Kind))
