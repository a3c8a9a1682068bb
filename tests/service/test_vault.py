import httpx
import pytest
from pydantic import SecretStr

from service import registry
from service.asking import TeacherError, find_endpoint
from service.settings import Settings
from service.site import Site
from service.tables import Teacher
from service.vault import SealedElsewhereError, seal, unseal
from tests.service.fakes import FakeTeacher


def test_a_sealed_text_opens_under_its_secret_alone(settings: Settings) -> None:
    sealed = seal(settings, "sk-1")
    assert "sk-1" not in sealed
    assert unseal(settings, sealed) == "sk-1"
    other = settings.model_copy(update={"secret": SecretStr("x" * 40)})
    with pytest.raises(SealedElsewhereError, match="RETORT_SECRET"):
        unseal(other, sealed)
    with pytest.raises(SealedElsewhereError):
        unseal(settings, sealed[:-4] + "AAAA")


async def test_a_stored_key_is_used_and_never_shown(
    api: httpx.AsyncClient, site: Site, teacher_server: FakeTeacher
) -> None:
    teacher_server.key = "sk-very-secret"
    wanted = {"name": "t", "base_url": teacher_server.url, "served_model": "m"}
    assert (await api.post("/api/v1/teachers", json=wanted)).status_code == 422
    made = await api.post("/api/v1/teachers", json=wanted | {"api_key": "sk-very-secret"})
    assert (made.status_code, made.json()["has_key"]) == (201, True)
    assert (await api.post("/api/v1/teachers/t/probe")).json()["probe"]["ok"]
    for path in ("/api/v1/teachers", "/api/v1/teachers/t"):
        assert "sk-very" not in (await api.get(path)).text
    teacher = registry.get(site, "t")
    assert "sk-very" not in str(teacher.__dict__)
    assert find_endpoint(teacher, site.settings).key == "sk-very-secret"
    elsewhere = site.settings.model_copy(update={"secret": SecretStr("y" * 40)})
    with pytest.raises(TeacherError, match="register the teacher"):
        find_endpoint(teacher, elsewhere)
    # Registered again without a key, it has none.
    await api.post("/api/v1/teachers", json=wanted, params={"check": False})
    assert registry.get(site, "t").api_key_sealed is None


async def test_a_key_is_given_in_one_way(api: httpx.AsyncClient) -> None:
    wanted = {"name": "t", "base_url": "http://127.0.0.1:9", "served_model": "m"}
    both = wanted | {"api_key": "sk-very-secret", "api_key_env": "K"}
    refused = await api.post("/api/v1/teachers", json=both)
    assert (refused.status_code, "sk-very" in refused.text) == (422, False)


def test_a_row_without_a_key_asks_without_one(settings: Settings) -> None:
    teacher = Teacher(name="t", base_url="http://h/v1", served_model="m", probe={})
    assert find_endpoint(teacher, settings).key is None
