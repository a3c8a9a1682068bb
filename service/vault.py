"""Teachers' keys at rest: encrypted under a key of the installation's secret, never shown again."""

import base64

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.secret import secret_of
from service.settings import Settings

PURPOSE = b"retort: teachers' keys"
"""Sets this key apart from whatever else is derived from the secret."""


class SealedElsewhereError(Exception):
    """What was stored can't be opened: it was sealed under another secret, or was changed."""


def seal(settings: Settings, text: str) -> str:
    """`text`, encrypted and authenticated."""
    return _box(settings).encrypt(text.encode()).decode()


def unseal(settings: Settings, sealed: str) -> str:
    """What `seal` was given. Raises SealedElsewhereError."""
    try:
        return _box(settings).decrypt(sealed.encode()).decode()
    except InvalidToken as error:
        raise SealedElsewhereError(
            "the stored key can't be opened with this installation's secret: give API and workers "
            "the same RETORT_SECRET (or data directory), or register the teacher with its key again"
        ) from error


def _box(settings: Settings) -> Fernet:
    derived = HKDF(SHA256(), 32, None, PURPOSE).derive(secret_of(settings))
    return Fernet(base64.urlsafe_b64encode(derived))
