"""The local disk as an object store: what a laptop uses instead of S3, with the same promises."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

from fluxfarm.errors import Conflict, NotFound, StoreUnavailable
from storage.links import LinkSigner, content_disposition
from storage.object_keys import StoredObject, check_prefix, check_put, check_ttl, content_type_of

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_PARTIAL: Final = ".partial"  #: where files grow; never listed, on the same file system as the rest
_STALE: Final = 3600.0  #: seconds after which a partial file has lost its writer
_LINK_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class ServedObject:
    """What the API needs to answer a valid link; ``size`` is in bytes."""

    path: Path
    content_type: str
    disposition: str
    size: int


class LocalStore:
    """Files under one folder; a file is there whole or not at all, also after a crash or on a full disk."""

    def __init__(self, root: Path, base_url: str, signer: LinkSigner) -> None:
        """``base_url`` is where callers reach the API, which serves the links."""
        with _disk_errors():
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root = root.resolve()
            self._partial = self._root / _PARTIAL
            self._partial.mkdir(exist_ok=True)
            self._drop_stale()
        self._base_url = base_url.rstrip("/")
        self._signer = signer

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """See ``ObjectStore.put``: written aside, flushed to the disk, then linked to its name if that is free."""
        check_put(key, content_type)
        partial = self._partial / secrets.token_hex(16)
        with _disk_errors():
            try:
                _write_flushed(partial, body)
                created = self._link(partial, self._path(key))
            finally:
                partial.unlink(missing_ok=True)
        if not created and self.get(key) != body:
            raise Conflict("The object exists with other content.")

    def get(self, key: str) -> bytes:
        """See ``ObjectStore.get``."""
        with _disk_errors(missing=True):
            return self.open_path(key).read_bytes()

    def stat(self, key: str) -> StoredObject | None:
        """See ``ObjectStore.stat``."""
        try:
            with _disk_errors(missing=True):
                return StoredObject(key, self.open_path(key).stat().st_size, content_type_of(key))
        except NotFound:
            return None

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        content_type_of(key)
        with _disk_errors():
            path = self._path(key)
            path.unlink(missing_ok=True)
            self._prune(path.parent)

    def delete_prefix(self, prefix: str) -> int:
        """See ``ObjectStore.delete_prefix``."""
        folder = self._root / check_prefix(prefix, whole_store=False)
        count = 0
        with _disk_errors():
            for parent, _, names in os.walk(folder, topdown=False, onerror=_raise_unless_gone):
                for name in names:
                    with suppress(FileNotFoundError):
                        (Path(parent) / name).unlink()
                        count += 1
            self._prune(folder)
        return count

    def keys(self, prefix: str) -> Iterator[str]:
        """See ``ObjectStore.keys``; in the order of the names."""
        folder = self._root / check_prefix(prefix, whole_store=True)
        with _disk_errors():
            for parent, folders, names in os.walk(folder, onerror=_raise_unless_gone):
                folders.sort()
                for name in sorted(names):
                    yield (Path(parent) / name).relative_to(self._root).as_posix()

    def presign(self, key: str, *, ttl: int, content_type: str, filename: str | None, inline: bool) -> str:
        """See ``ObjectStore.presign``; the API serves the link through ``open_link``."""
        content_type_of(key)
        disposition = content_disposition(filename, inline=inline)
        params = self._signer.sign(key, ttl=check_ttl(ttl), content_type=content_type, disposition=disposition)
        return f"{self._base_url}/objects/{key}?{urlencode(params)}"

    def open_link(self, key: str, params: Mapping[str, str]) -> ServedObject:
        """What a link's path (below ``/objects/``, unquoted once) and query ask for.

        Raises:
            Forbidden: not signed by us, or altered.
            LinkExpired: past its time.
            NotFound: the link is good, the object is erased.
        """
        link = self._signer.verify(key, params)
        with _disk_errors(missing=True):
            path = self.open_path(key)
            return ServedObject(path, link.content_type, link.disposition, path.stat().st_size)

    def open_path(self, key: str) -> Path:
        """The file of an object; ``NotFound`` for a missing one and for any name that leads elsewhere."""
        with _disk_errors():
            path = self._path(key)
            if not path.is_file():
                raise NotFound("There is no such object.")
        return path

    def check(self) -> None:
        """See ``ObjectStore.check``: a byte is written and taken away, which also notices a full disk."""
        probe = self._partial / secrets.token_hex(16)
        with _disk_errors():
            try:
                probe.write_bytes(b"\0")
            finally:
                probe.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, key: str) -> Path:
        content_type_of(key)
        path = (self._root / key).resolve()
        if not path.is_relative_to(self._root):
            raise NotFound("There is no such object.")  # a symbolic link in the folder leads out of it
        return path

    def _link(self, partial: Path, target: Path) -> bool:
        """Gives the finished file its name; False when the name is taken."""
        for _ in range(_LINK_TRIES):
            self._make_folder(target.parent)
            try:
                target.hardlink_to(partial)
            except FileNotFoundError:
                continue  # a sweep took the empty folder away in between
            except FileExistsError:
                return False
            _flush_folder(target.parent)
            return True
        raise StoreUnavailable("The folder of an object vanishes while it is written.")

    def _make_folder(self, folder: Path) -> None:
        if folder == self._root or folder.is_dir():
            return
        self._make_folder(folder.parent)
        with suppress(FileExistsError, FileNotFoundError):
            folder.mkdir()
            _flush_folder(folder.parent)

    def _prune(self, folder: Path) -> None:
        """Takes away empty folders, from the deepest to the first that is still in use."""
        for name, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                Path(name).rmdir()
        for parent in folder.parents:
            if parent == self._root:
                return
            with suppress(OSError):
                parent.rmdir()

    def _drop_stale(self) -> None:
        for path in self._partial.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _STALE:
                    path.unlink()


def _write_flushed(path: Path, body: bytes) -> None:
    with path.open("xb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """A new name survives a power cut only when its folder is flushed too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise_unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def _disk_errors(*, missing: bool = False) -> Iterator[None]:
    """Turns the errors of the disk into those of the farm; no path gets into a message.

    ``missing``: a file that is not there is the caller's news; otherwise the folder itself has gone.
    """
    try:
        yield
    except OSError as error:
        if missing and isinstance(error, FileNotFoundError):
            raise NotFound("There is no such object.") from error
        reason = "is full" if error.errno in _FULL else f"cannot be used ({errno.errorcode.get(error.errno or 0, '?')})"
        raise StoreUnavailable(f"The disk of the object store {reason}.", retry_after=30) from error
