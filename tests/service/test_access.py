"""Who is let in. Each test stands for a way in that must stay shut."""

import stat
from collections.abc import AsyncIterator

import httpx
import pytest
from itsdangerous import URLSafeTimedSerializer
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from service import access, keys, login
from service.app import create_app
from service.keys import NewKey, Scope
from service.login import COOKIE
from service.problems import Problem
from service.secret import WeakSecretError, secret_of
from service.settings import Settings
from service.site import Site
from service.spec import job_spec
from service.tables import Job, State, now
from tests.service.given import add_teacher, build, spec

JOBS, KEYS = "/api/v1/jobs", "/api/v1/keys"
SERVE = {"kind": "serve", "model": "org/model", "name": "t"}


def made(site: Site, *scopes: Scope) -> tuple[str, dict[str, str]]:
    """A key's id and the header that shows it."""
    key, token = keys.create(site, NewKey(name="k", scopes=scopes))
    return key.id, {"Authorization": f"Bearer {token}"}


@pytest.fixture
async def remote(site: Site, api: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """The same app, asked from another machine."""
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    transport = httpx.ASGITransport(app, client=("192.0.2.7", 4242))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_without_keys_this_machine_may_do_everything_and_others_nothing(
    api: httpx.AsyncClient, remote: httpx.AsyncClient
) -> None:
    assert (await api.get(JOBS)).status_code == 200
    assert (await api.get(KEYS)).status_code == 200
    refused = await remote.get(JOBS)
    assert refused.status_code == 403
    assert "retort keys create" in refused.json()["detail"]


async def test_with_a_key_made_nobody_is_let_in_without_one(
    site: Site, api: httpx.AsyncClient, remote: httpx.AsyncClient
) -> None:
    _, shown = made(site, "read")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eDp5"}):
        answer = await api.get(JOBS, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert (await api.get(JOBS, headers=shown)).status_code == 200
    assert (await remote.get(JOBS, headers=shown)).status_code == 200
    assert (await api.get("/healthz")).status_code == 200


async def test_a_revoked_key_is_refused_and_does_not_open_the_installation_again(
    site: Site, api: httpx.AsyncClient
) -> None:
    key_id, shown = made(site, "read")
    assert (await api.get(JOBS, headers=shown)).status_code == 200
    keys.revoke(site, key_id)
    assert (await api.get(JOBS, headers=shown)).status_code == 401
    assert (await api.get(JOBS)).status_code == 401


@pytest.mark.parametrize(
    ("scope", "method", "path", "body"),
    [
        ("submit", "GET", JOBS, None),
        ("read", "POST", JOBS, SERVE),
        ("submit", "POST", JOBS, SERVE),
        ("train", "POST", "/api/v1/teachers", {}),
        ("train", "DELETE", "/api/v1/teachers/t", None),
        ("train", "GET", KEYS, None),
        ("submit", "POST", KEYS, {"name": "mine", "scopes": ["admin"]}),
        ("read", "POST", "/api/v1/files?name=a", None),
        ("submit", "POST", "/v1/fine_tuning/jobs", {}),
    ],
)
async def test_a_key_without_the_scope_is_refused(
    site: Site,
    api: httpx.AsyncClient,
    scope: Scope,
    method: str,
    path: str,
    body: dict[str, object] | None,
) -> None:
    _, shown = made(site, scope)
    answer = await api.request(method, path, json=body, headers=shown)
    assert answer.status_code == 403
    assert "scope" in answer.text


async def test_a_key_with_the_scope_is_enough(
    site: Site, api: httpx.AsyncClient, seeds: str
) -> None:
    add_teacher(site)
    _, submit = made(site, "submit", "read")
    _, train = made(site, "train", "submit")
    _, admin = made(site, "admin")
    job = {"kind": "build", "build": build(seeds)}
    assert (await api.post(JOBS, json=job, headers=submit)).status_code == 202
    assert (await api.post(JOBS, json=SERVE | {"name": "u"}, headers=train)).status_code == 202
    assert (await api.get(KEYS, headers=admin)).status_code == 200


@pytest.mark.parametrize(
    ("fields", "scope"),
    [
        ({"kind": "report", "job": "job-1"}, "submit"),
        ({"kind": "serve", "model": "m", "name": "t"}, "train"),
        ({"kind": "recipe", "build": build("s"), "train": None}, "submit"),
        (
            {
                "kind": "recipe",
                "build": build("s"),
                "train": {"method": "sequence_level", "student": "s"},
            },
            "train",
        ),
    ],
)
def test_what_takes_the_device_needs_the_scope_train(fields: dict[str, object], scope: str) -> None:
    assert access.required_for(spec(**fields)) == scope


async def test_a_key_is_shown_once_and_stored_as_a_digest(
    site: Site, api: httpx.AsyncClient
) -> None:
    answer = (await api.post(KEYS, json={"name": "first", "scopes": ["admin"]})).json()
    shown = {"Authorization": f"Bearer {answer['key']}"}
    listed = (await api.get(KEYS, headers=shown)).json()["keys"]
    assert [row["name"] for row in listed] == ["first"]
    assert listed[0]["last_used_at"] is not None
    assert answer["key"] not in str(listed)
    files = site.settings.data_dir.glob("retort.db*")  # SQLite's log is a part of it.
    database = b"".join(file.read_bytes() for file in files)
    assert answer["key"].encode() not in database
    assert keys.digest(answer["key"]).encode() in database


async def test_a_foreign_host_name_is_refused(api: httpx.AsyncClient) -> None:
    for host, status in (("evil.example", 403), ("127.0.0.1:8300", 200), ("[::1]:8300", 200)):
        assert (await api.get(JOBS, headers={"Host": host})).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9999"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_another_site_cannot_make_a_browser_write(
    api: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    answer = await api.post(JOBS, json=SERVE, headers=headers)
    assert (answer.status_code, answer.json()["type"][-4:]) == (403, "csrf")


async def test_a_session_writes_only_with_its_token(site: Site, api: httpx.AsyncClient) -> None:
    made(site, "admin")
    ticket = login.redeem(site, token_of(login.link(site.settings, "http://localhost")))
    api.cookies.set(COOKIE, login.sealed(site.settings, ticket))
    assert (await api.get(JOBS)).status_code == 200
    assert (await api.post(JOBS, json=SERVE)).status_code == 403
    other = {"X-CSRF-Token": login.new_ticket().csrf}
    assert (await api.post(JOBS, json=SERVE, headers=other)).status_code == 403
    right = {"X-CSRF-Token": ticket.csrf, "Origin": "http://localhost"}
    assert (await api.post(JOBS, json=SERVE, headers=right)).status_code == 202


async def test_who_may_only_look_may_log_out(site: Site, api: httpx.AsyncClient) -> None:
    key_id, _ = made(site, "read")
    api.cookies.set(COOKIE, login.sealed(site.settings, login.new_ticket(key_id=key_id)))
    left = await api.post("/logout", headers={"Origin": "http://localhost"})
    assert (left.status_code, left.headers["location"]) == (303, "/login")
    assert f'{COOKIE}=""' in left.headers["set-cookie"]
    foreign = await api.post("/logout", headers={"Origin": "https://evil.example"})
    assert foreign.status_code == 403


async def test_a_key_runs_no_schedule_whose_job_it_may_not_submit(
    site: Site, api: httpx.AsyncClient
) -> None:
    _, submit = made(site, "submit")
    _, train = made(site, "train", "submit")
    wanted = {"name": "s", "cron": "0 3 * * *", "job": SERVE}
    path = "/api/v1/schedules"
    assert (await api.post(path, json=wanted, headers=train)).status_code == 201
    refused = await api.post(f"{path}/s/run", headers=submit)
    assert (refused.status_code, "'train'" in refused.text) == (403, True)
    assert (await api.post(f"{path}/s/run", headers=train)).status_code == 202
    assert (await api.post(f"{path}/s/pause", headers=submit)).status_code == 200
    refused = await api.post(f"{path}/s/resume", headers=submit)
    assert (refused.status_code, "'train'" in refused.text) == (403, True)
    assert (await api.post(f"{path}/s/resume", headers=train)).status_code == 200


async def test_a_key_lets_no_job_go_on_that_it_may_not_submit(
    site: Site, api: httpx.AsyncClient
) -> None:
    _, submit = made(site, "submit")
    _, train = made(site, "train", "submit")
    with site.sessions.writing.begin() as session:
        spec = job_spec.validate_python(SERVE).model_dump(mode="json")
        session.add(Job(id="job-s", kind="train", name="s", spec=spec, state=State.PAUSED))
    refused = await api.post("/api/v1/jobs/job-s/resume", headers=submit)
    assert (refused.status_code, "'train'" in refused.text) == (403, True)
    assert (await api.post("/api/v1/jobs/job-s/resume", headers=train)).status_code < 300


async def test_a_session_of_a_key_has_its_scopes_and_ends_with_it(
    site: Site, api: httpx.AsyncClient
) -> None:
    key_id, _ = made(site, "read")
    ticket = login.new_ticket(key_id=key_id)
    api.cookies.set(COOKIE, login.sealed(site.settings, ticket))
    assert (await api.get(JOBS)).status_code == 200
    csrf = {"X-CSRF-Token": ticket.csrf}
    assert (await api.post(JOBS, json=SERVE, headers=csrf)).status_code == 403
    keys.revoke(site, key_id)
    assert (await api.get(JOBS)).status_code == 401


async def test_a_forged_or_anonymous_cookie_opens_nothing(
    site: Site, api: httpx.AsyncClient
) -> None:
    made(site, "admin")
    theirs = URLSafeTimedSerializer("0" * 64, salt="retort session")
    forged = theirs.dumps({"csrf": "x", "key_id": None, "by_link": True})
    for cookie in (forged, login.sealed(site.settings, login.new_ticket()), "rubbish"):
        api.cookies.set(COOKIE, cookie)
        assert (await api.get(JOBS)).status_code == 401


@pytest.mark.parametrize(("said", "secure"), [("https", True), ("http", False)])
async def test_behind_a_proxy_with_tls_a_session_is_for_tls_only(
    site: Site, said: str, secure: bool
) -> None:
    app = create_app(site.settings)
    app.state.site.sessions.engine.dispose()
    app.state.site = site
    proxied = httpx.ASGITransport(ProxyHeadersMiddleware(app))
    async with httpx.AsyncClient(transport=proxied, base_url="http://localhost") as client:
        form = {"token": token_of(login.link(site.settings, "http://localhost"))}
        headers = {"X-Forwarded-Proto": said, "Origin": f"{said}://localhost"}
        opened = await client.post("/login", data=form, headers=headers)
        assert opened.status_code == 303
        assert ("; secure" in opened.headers["set-cookie"].lower()) is secure


def test_a_login_link_is_good_once(site: Site) -> None:
    token = token_of(login.link(site.settings, "http://localhost"))
    assert login.redeem(site, token).by_link
    with pytest.raises(Problem, match="used before"):
        login.redeem(site, token)
    with pytest.raises(Problem, match="not one of this"):
        login.redeem(site, token[:-2] + "xx")


def test_an_old_login_link_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    token = token_of(login.link(site.settings, "http://localhost"))
    monkeypatch.setattr(login, "LINK_S", -1)
    with pytest.raises(Problem, match="too old"):
        login.redeem(site, token)


def test_a_session_cookie_is_not_a_login_link(site: Site) -> None:
    with pytest.raises(Problem, match="not one of this"):
        login.redeem(site, login.sealed(site.settings, login.new_ticket()))


def test_the_secret_is_for_its_user_only_and_stays(settings: Settings) -> None:
    secret = secret_of(settings)
    mode = stat.S_IMODE((settings.data_dir / "secret.key").stat().st_mode)
    assert (mode, len(secret), secret_of(settings)) == (0o600, 64, secret)
    weak = Settings(data_dir=settings.data_dir, secret="short")  # type: ignore[arg-type]
    with pytest.raises(WeakSecretError, match="RETORT_SECRET"):
        secret_of(weak)


def test_listening_elsewhere_needs_a_key(site: Site) -> None:
    access.require_keys_elsewhere(site)
    everywhere = site.settings.model_copy(update={"host": "0.0.0.0"})
    open_site = Site(everywhere, site.sessions, site.store, site.broker)
    with pytest.raises(Problem, match="retort keys create"):
        access.require_keys_elsewhere(open_site)
    made(site, "admin")
    access.require_keys_elsewhere(open_site)


def test_use_is_noted_to_the_minute(site: Site) -> None:
    key, token = keys.create(site, NewKey(name="k"))
    keys.note_use(site, key)
    with site.sessions.reading() as session:
        noted = keys.by_token(session, token)
    assert noted is not None
    assert noted.last_used_at is not None
    first = noted.last_used_at
    keys.note_use(site, noted)
    with site.sessions.reading() as session:
        again = keys.by_token(session, token)
    assert again is not None
    assert again.last_used_at == first
    assert key.created_at <= now()


def token_of(link: str) -> str:
    return link.partition("token=")[2]
