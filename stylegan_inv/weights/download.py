"""Downloads published weights into a cache at their first use, and checks them.

`table` lists the weights. The cache is ``$STYLEGAN_INV_CACHE/weights``, by default ``~/.cache/stylegan_inv/weights``.
``STYLEGAN_INV_OFFLINE=1`` forbids downloads, as does ``weights.offline=true`` on the command line.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import read_text
from stylegan_inv.weights.table import TABLE, Weights
from stylegan_inv.weights.verification import file_hash, is_intact, matches, remember

__all__ = ["cache_folder", "downloads", "fetch", "file_hash", "is_web_page", "offline_wanted"]

OFFLINE = "STYLEGAN_INV_OFFLINE"
ATTEMPTS = 3  # for each address, after temporary errors
PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
#: Far above any file of the table; a server that states no length might never end.
_MOST_BYTES = 8 << 30
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


def fetch(source: str | Path, *, offline: bool | None = None, cache: Path | None = None) -> Path:
    """Returns the path of a file of weights, which is downloaded unless it is in the cache.

    An interrupted download continues where it stopped. The file appears under its name only when it is complete and has
    the expected size and hash. Concurrent processes wait for the first one.

    Args:
        source: A name of `TABLE`, or a local file, which is returned unchanged.
        offline: Never use the network; None reads ``STYLEGAN_INV_OFFLINE``.
        cache: Folder of the cache; None takes the default one.

    Raises:
        UserError: An unknown name, a file that is not in the cache while downloads are forbidden, or no address with
            the expected file.
    """
    path = Path(source).expanduser()
    entry = TABLE.get(str(source))
    if entry is None:
        if path.is_file():
            return path
        raise UserError(f"{source}: no such file, and not one of the known weights ({', '.join(TABLE)})")
    folder = cache or cache_folder()
    target = folder / entry.file
    if is_intact(target, entry):
        return target
    if offline_wanted(offline):
        found = f"{target} is not the published {source}" if target.is_file() else f"{source} is not in the cache"
        raise UserError(
            f"{found} and downloads are switched off: put the file at {target} "
            f"(from {entry.urls[0]}), or allow downloads (weights.offline=false)"
        )
    from filelock import FileLock  # a dependency of PyTorch

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The operating system releases this lock when its owner ends.
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not is_intact(target, entry):
                _download(str(source), entry, target)
    except OSError as error:
        raise UserError(
            f"{source}: cannot be written to {folder} ({error.strerror or error}); set STYLEGAN_INV_CACHE to a "
            f"writable folder with free space"
        ) from error
    return target


def cache_folder() -> Path:
    """Returns the folder of downloaded weights."""
    root = os.environ.get("STYLEGAN_INV_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "stylegan_inv") / "weights"


def offline_wanted(offline: bool | None = None) -> bool:
    """Returns ``offline``, or what ``STYLEGAN_INV_OFFLINE`` says if it is None."""
    if offline is not None:
        return offline
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "no")


@contextlib.contextmanager
def downloads(offline: bool | None) -> Iterator[None]:
    """A context that forbids or allows downloads, also in child processes.

    Args:
        offline: True forbids them, False allows them, None changes nothing.

    Raises:
        UserError: Another value.
    """
    if offline is not None and not isinstance(offline, bool):
        raise UserError(f"weights.offline={offline!r}: expected true, false or null")
    before = os.environ.get(OFFLINE)
    if offline is not None:
        os.environ[OFFLINE] = str(int(offline))
    try:
        yield
    finally:
        if before is not None:
            os.environ[OFFLINE] = before
        elif offline is not None:
            os.environ.pop(OFFLINE, None)


def is_web_page(head: bytes) -> bool:
    """Returns whether the first bytes of a file are HTML, such as the login or quota page of a server."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE)


class _TemporaryError(Exception):
    """Raised when another attempt may succeed."""


class _PermanentError(Exception):
    """Raised when this address does not have the file."""


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect of an encrypted connection to encrypted ones only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise _PermanentError(f"redirects to {newurl[:100]}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(name: str, entry: Weights, target: Path) -> None:
    size = f", {entry.size / 1e6:.0f} MB" if entry.size else ""
    print(f"downloading {name} ({entry.source}{size}); licence: {entry.licence}", flush=True)
    if target.is_file():
        print(f"{target} is not the published file, by its size or sha256; it is replaced", flush=True)
    part = target.with_name(f".{target.name}.partial")
    problems = []
    for url in entry.urls:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS * attempt)
            try:
                resumed = _receive(url, part, entry)
                digest = _check(part, entry, resumed)
            except _TemporaryError as error:
                problem = str(error)
            except _PermanentError as error:
                problem = str(error)
                break
            else:
                if entry.sha256 is None:
                    print(f"sha256 {digest}: no hash is published; its keys are checked when it is loaded")
                os.replace(part, target)
                remember(target, digest, entry)
                _remove_partial(part)
                print(f"saved {target}", flush=True)
                return
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"{name} could not be downloaded ({'; '.join(problems)}); download it with a browser to {target}, or give the "
        f"path of your copy"
    )


def _note(part: Path) -> Path:
    """Returns the file that stores the address and version of a partial download."""
    return part.with_name(f"{part.name}.etag")


def _noted(part: Path) -> tuple[str, str]:
    """Returns the address and the version of a partial download; empty if they are unknown."""
    try:
        address, _, version = read_text(_note(part), _CHUNK).partition("\n")
    except UserError:
        return "", ""
    return address, version.partition("\n")[0]


def _remove_partial(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _receive(url: str, part: Path, entry: Weights) -> bool:
    """Downloads a file, continues a partial download, and returns whether there was one."""
    start = part.stat().st_size if part.is_file() else 0
    address, version = _noted(part)
    if address != url:
        version = ""
    if start and not version:  # from another address, or the version is unknown
        start = 0
    if entry.size is not None and start > entry.size:
        start = 0
    if entry.size is not None and start == entry.size:
        return True
    headers = {"User-Agent": "stylegan_inv", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        opener = urllib.request.build_opener(_SecureRedirects)
        with opener.open(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as answer:
            if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                start = 0
            _store(answer, url, part, start, entry)
            return start > 0
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the partial download is longer than the file
            _remove_partial(part)
            raise _TemporaryError("the file is shorter than the partial download") from error
        kind = _TemporaryError if error.code in (408, 425, 429) or error.code >= 500 else _PermanentError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _TemporaryError(f"the connection failed ({reason})") from error


def _store(answer: Any, url: str, part: Path, start: int, entry: Weights) -> None:
    length = answer.headers.get("Content-Length")
    is_number = length is not None and re.fullmatch("[0-9]{1,15}", length)
    total = start + int(length) if is_number else entry.size
    if entry.size is not None and total != entry.size:
        page = answer.read(256)
        what = "a web page (a quota or login page?)" if is_web_page(page) else f"a file of {total} bytes"
        raise _PermanentError(f"returned {what}, expected {entry.size} bytes")
    most = _MOST_BYTES if total is None else total
    if most > _MOST_BYTES:
        raise _PermanentError(f"returned a file of {most} bytes, expected at most {_MOST_BYTES}")
    if total is not None and shutil.disk_usage(part.parent).free < total - start:
        raise OSError(f"{total - start} bytes of free space are required")
    with open(part, "ab" if start else "wb") as file, _progress() as progress:
        bar = progress.add_task(entry.file, total=total, completed=start)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        _note(part).write_text(f"{url}\n{'' if version.startswith('W/') else version}")
        received = start
        while block := answer.read(_CHUNK):
            if received == 0 and is_web_page(block):
                raise _PermanentError("returned a web page (a quota or login page?), expected a file of weights")
            if received + len(block) > most:
                raise _PermanentError(f"returned more than {most} bytes")
            file.write(block)
            received += len(block)
            progress.update(bar, completed=received)
    if total is not None and received != total:
        raise _TemporaryError(f"the connection ended after {received} of {total} bytes")


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _check(part: Path, entry: Weights, resumed: bool) -> str:
    digest = file_hash(part)
    if part.stat().st_size == 0:
        raise _PermanentError("returned an empty file")
    if entry.sha256 is not None and not matches(digest, entry):
        _remove_partial(part)
        # A resumed download may consist of two versions; a complete one would be the same again.
        kind = _TemporaryError if resumed else _PermanentError
        raise kind(f"returned a file with sha256 {digest}, expected {entry.sha256}")
    return digest
