"""The installation's own secret, from which cookies and login links are signed."""

import hmac
import os
import secrets
from hashlib import sha256
from pathlib import Path

from service.settings import Settings

FILE = "secret.key"
SHORTEST_BYTES = 32


class WeakSecretError(Exception):
    """The secret is too short to protect anything."""


def secret_of(settings: Settings) -> bytes:
    """The secret of the settings, else of the data directory, where the first caller makes it:
    256 random bits, readable by its user only. Raises WeakSecretError for a short one."""
    if settings.secret is not None:
        return _strong(settings.secret.get_secret_value().encode(), "RETORT_SECRET")
    path = settings.data_dir / FILE
    if not path.exists():
        _make(path)
    return _strong(path.read_bytes(), str(path))


def derived(settings: Settings, purpose: str) -> str:
    """A password that follows from the secret: the same for a purpose each time."""
    return hmac.new(secret_of(settings), purpose.encode(), sha256).hexdigest()


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{FILE}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    try:
        # A link, not a rename: of two processes that start at once, the first one's secret stays.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def _strong(secret: bytes, where: str) -> bytes:
    if len(secret) < SHORTEST_BYTES:
        raise WeakSecretError(f"{where} needs at least {SHORTEST_BYTES} characters, at random")
    return secret
