"""An artifact root in a bucket of S3, or of a server that speaks its protocol.

    <prefix>/<kind>/<id>/…      an artifact's files
    <prefix>/<kind>/<id>.json   its manifest, uploaded last: what has none is seen by nobody
    <prefix>/ledger/…  build/…  cache/…  embeddings/…

An object is there as a whole or not at all, and every host sees it as soon as its upload has been
answered: a PUT is what fsync and rename are on a disk. Credentials, region and endpoint are those
of the AWS tools: environment, `~/.aws`, or the machine's role.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import s3fs
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
from fsspec.exceptions import FSTimeoutError

from prompts.dataset.files import file_sha256
from service import disk
from service.shared import Found, StorageAwayError, StorageError, Wanted

MANIFEST = ".json"
DRAFTS = ".drafts"
"""Downloads under way: on the mirror's file system, and seen by nobody."""
CONNECT_S, READ_S = 5, 60
ROUNDS = 2
"""Of the attempts that AWS_MAX_ATTEMPTS allows. Whoever can wait tries again after that, too."""
AT_ONCE = 4
"""Parts of 50 MB in memory at once, and small files under way."""
AGAIN = frozenset({408, 429})
"""Besides 5xx: answers that a later attempt may change."""


class Bucket:
    """`url` is s3://bucket/prefix; `root` its mirror on this host."""

    def __init__(self, url: str, root: Path, min_free_bytes: int) -> None:
        self._url, self._root, self._min_free_bytes = url, root, min_free_bytes
        self._name, _, self._prefix = url.removeprefix("s3://").partition("/")
        # Listings are never remembered: other hosts write, too.
        self._s3: Any = s3fs.S3FileSystem(
            use_listings_cache=False,
            skip_instance_cache=True,
            max_concurrency=AT_ONCE,
            config_kwargs={
                "connect_timeout": CONNECT_S,
                "read_timeout": READ_S,
            },
        )
        self._s3.retries = ROUNDS

    def location(self, path: Path) -> str:
        return f"s3://{self._key(path)}"

    def check(self) -> None:
        with self._asking():
            self._s3.call_s3("list_objects_v2", Bucket=self._name, Prefix=self._prefix, MaxKeys=1)

    def write(self, path: Path, data: bytes) -> None:
        with self._asking():
            self._s3.pipe_file(self._key(path), data)

    def move(self, draft: Path, path: Path) -> None:
        self._upload(draft, path)
        draft.unlink()

    def push(self, path: Path) -> None:
        self._upload(path, path)

    def pull(self, path: Path) -> None:
        if path.is_file():
            return
        there = (found.path for found in self.found(path))
        self._download([each for each in there if not each.is_file()])

    def publish(self, folder: Path, files: Mapping[str, disk.FileDigest]) -> None:
        listed = {name: asdict(file) for name, file in files.items()}
        manifest = json.dumps({"format": 1, "files": listed}, indent=1).encode()
        for name in files:
            self.push(folder / name)
        self.write(_manifest(folder), manifest)
        self._keep_manifest(folder, manifest)

    def fetch(self, folder: Path, wanted: Wanted) -> None:
        files = self._published(folder)
        missing = {
            folder / name: file
            for name, file in files.items()
            if wanted(name) and not (folder / name).is_file()
        }
        if missing:
            self._root.mkdir(parents=True, exist_ok=True)
            needed = sum(file.bytes for file in missing.values())
            disk.require_space(self._root, needed, self._min_free_bytes)
            for path in missing:
                self._download([path], missing)  # What is here stays, if the next one fails.
        if folder.is_dir():
            os.utime(folder)  # Retention goes by when it was last asked for.

    def whole(self, folder: Path) -> bool:
        files = self._published(folder)
        sizes = {found.path: found.bytes for found in self.found(folder)}
        return bool(files) and all(sizes.get(folder / n) == each.bytes for n, each in files.items())

    def names(self, folder: Path) -> list[str]:
        with self._asking():
            try:
                there = self._s3.ls(self._key(folder), detail=False)
            except FileNotFoundError as error:
                self._require_bucket(error)
                there = []
        here = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return sorted({key.rpartition("/")[2] for key in there} | set(here))

    def found(self, folder: Path) -> Iterator[Found]:
        with self._asking():
            there = self._s3.find(self._key(folder), detail=True)
        for key in sorted(there):
            facts = there[key]
            yield Found(self._path(key), facts["size"], facts["LastModified"])

    def unpublished(self, folder: Path, before: datetime) -> Iterator[Path]:
        names = set(self.names(folder))
        for name in sorted(names):
            if name.endswith(MANIFEST) or f"{name}{MANIFEST}" in names:
                continue
            found = list(self.found(folder / name))
            if found and max(each.modified for each in found) < before:
                yield folder / name

    def remove(self, path: Path) -> None:
        with self._asking():
            # What stands in a manifest is there: the manifest goes first.
            self._delete([self._key(_manifest(path))])
            self._delete(sorted(self._s3.find(self._key(path))))
        disk.remove(path)
        _manifest(path).unlink(missing_ok=True)

    def _delete(self, keys: list[str]) -> None:
        for at in range(0, len(keys), 1000):
            objects = [{"Key": key.partition("/")[2]} for key in keys[at : at + 1000]]
            answer = self._s3.call_s3(
                "delete_objects", Bucket=self._name, Delete={"Objects": objects, "Quiet": True}
            )
            for refused in answer.get("Errors", []):
                words = f"{refused.get('Key')} can't be deleted: {refused.get('Message')}"
                raise StorageError(f"{self._url}: {words}")

    def _upload(self, source: Path, path: Path) -> None:
        with self._asking():
            self._s3.put_file(str(source), self._key(path))

    def _download(
        self, paths: list[Path], expected: Mapping[Path, disk.FileDigest] | None = None
    ) -> None:
        """Bring files here, each whole or not at all, and as is `expected` of it."""
        drafts = {path: self._root / DRAFTS / uuid4().hex for path in paths}
        (self._root / DRAFTS).mkdir(parents=True, exist_ok=True)
        try:
            with self._asking():
                keys = [self._key(path) for path in paths]
                self._s3.get(keys, [str(draft) for draft in drafts.values()], batch_size=AT_ONCE)
            for path, draft in drafts.items():
                if expected is not None:
                    self._verify(path, draft, expected[path])
                path.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(path)
        finally:
            for draft in drafts.values():
                draft.unlink(missing_ok=True)

    def _verify(self, path: Path, draft: Path, expected: disk.FileDigest) -> None:
        if file_sha256(draft) != expected.sha256:
            words = "is not what was published: restore it from a backup or an earlier version"
            raise StorageError(f"{self.location(path)} {words}")

    def _published(self, folder: Path) -> dict[str, disk.FileDigest]:
        """Path inside -> what is there; nothing if it was never published as a whole."""
        kept = _manifest(folder)
        if not kept.is_file():
            try:
                with self._asking():
                    self._keep_manifest(
                        folder, self._s3.cat_file(self._key(kept), max_concurrency=1)
                    )
            except FileNotFoundError:
                return {}
        listed: dict[str, Any] = json.loads(kept.read_bytes())["files"]
        for name in listed:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise StorageError(f"{self.location(kept)} lists {name!r}, which leads out of it")
        return {name: disk.FileDigest(**file) for name, file in listed.items()}

    def _keep_manifest(self, folder: Path, content: bytes) -> None:
        kept, draft = _manifest(folder), self._root / DRAFTS / uuid4().hex
        for place in (kept, draft):
            place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(kept)

    def _key(self, path: Path) -> str:
        inside = path.relative_to(self._root).as_posix()
        parts = (self._name, self._prefix, "" if inside == "." else inside)
        return "/".join(part for part in parts if part)

    def _path(self, key: str) -> Path:
        return self._root / key.removeprefix(self._key(self._root)).lstrip("/")

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What S3 and its client raise, in words; errors of this host's disk as they are."""
        try:
            yield
        except StorageError:
            raise
        except FileNotFoundError as error:
            self._require_bucket(error)
            raise
        except NoCredentialsError as error:
            raise self._refused(f"there are no credentials: {error}") from error
        except (BotoCoreError, FSTimeoutError, ConnectionError, TimeoutError) as error:
            raise self._away(error) from error
        except OSError as error:
            answer = _answer(error)
            if answer is None:
                raise
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            if status >= 500 or status in AGAIN:
                raise self._away(error) from error
            refused = "the credentials are refused, " if isinstance(error, PermissionError) else ""
            raise self._refused(f"{refused}{answer['Error'].get('Code')}: {error}") from error

    def _require_bucket(self, error: FileNotFoundError) -> None:
        answer = _answer(error)
        if answer is not None and answer["Error"].get("Code") == "NoSuchBucket":
            raise self._refused(f"there is no bucket {self._name}") from error

    def _refused(self, why: str) -> StorageError:
        return StorageError(
            f"{self._url} can't be used: {why}. Mend RETORT_ARTIFACT_ROOT, the bucket, or the"
            " credentials of the AWS environment (AWS_ACCESS_KEY_ID …)"
        )

    def _away(self, error: Exception) -> StorageAwayError:
        return StorageAwayError(f"{self._url} doesn't answer ({type(error).__name__}: {error})")


def _manifest(folder: Path) -> Path:
    return folder.with_name(folder.name + MANIFEST)


def _answer(error: OSError) -> dict[str, Any] | None:
    """What S3 said, if it was S3."""
    cause = error.__cause__
    return dict(cause.response) if isinstance(cause, ClientError) else None
