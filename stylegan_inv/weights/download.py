"""Weights made by others: downloaded at their first use into a cache, checked, and never fetched twice.

What exists, from where and under which licence is one table, `weights_table`. The cache is
``$STYLEGAN_INV_CACHE/weights`` (by default ``~/.cache/stylegan_inv/weights``); ``STYLEGAN_INV_OFFLINE=1`` forbids the
network, and so does ``weights.offline=true`` on every command line.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.weights.table import TABLE, Weights

OFFLINE = "STYLEGAN_INV_OFFLINE"
ATTEMPTS = 3  # for each address, as long as it answers with passing faults
PAUSE_SECONDS = 2.0
_TIMEOUT_SECONDS = 30.0
_CHUNK = 1 << 20
_WEB_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")


def fetch(source: str | Path, *, offline: bool | None = None, cache: Path | None = None) -> Path:
    """The file of a name of the table, downloaded unless the cache has it; a path to a file is returned as it is.

    A download that was cut short goes on where it stopped. The file gets its name only when it is complete and its size
    and hash are right; several processes that want it wait for the first.

    Args:
        source: a name of `TABLE`, or a local file.
        offline: never use the network; None: as ``STYLEGAN_INV_OFFLINE`` says.
        cache: folder to keep files in.

    Raises:
        UserError: no such name, not in the cache and offline, or no address gave the right file.
    """
    path = Path(source).expanduser()
    entry = TABLE.get(str(source))
    if entry is None:
        if path.is_file():
            return path
        raise UserError(f"{source}: no such file, and not one of the known weights ({', '.join(TABLE)})")
    folder = cache or cache_folder()
    target = folder / entry.file
    if _complete(target, entry):
        return target
    if offline_wanted(offline):
        raise UserError(
            f"{source} is not in the cache and downloads are switched off: put the file at {target} "
            f"(from {entry.urls[0]}), or allow downloads (weights.offline=false)"
        )
    from filelock import FileLock  # PyTorch depends on it

    try:
        folder.mkdir(parents=True, exist_ok=True)
        # The system takes this lock back when its owner dies, so waiting ends.
        with FileLock(target.with_name(f"{target.name}.lock")):
            if not _complete(target, entry):
                _download(str(source), entry, target)
    except OSError as error:
        raise UserError(
            f"{source}: cannot be written to {folder} ({error.strerror or error}); set STYLEGAN_INV_CACHE to a folder "
            f"that is writable and has room"
        ) from error
    return target


def cache_folder() -> Path:
    """Where downloaded weights lie."""
    root = os.environ.get("STYLEGAN_INV_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "stylegan_inv") / "weights"


def offline_wanted(offline: bool | None = None) -> bool:
    """The given answer, or that of ``STYLEGAN_INV_OFFLINE``."""
    if offline is not None:
        return offline
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "no")


@contextlib.contextmanager
def downloads(offline: bool | None) -> Iterator[None]:
    """Forbid downloads inside, also to child processes (True), or allow them (False); None changes nothing.

    Raises:
        UserError: Something else than these three.
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


def file_hash(path: str | Path) -> str:
    """sha256 of a file, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def is_web_page(head: bytes) -> bool:
    """Whether a file that begins so is HTML: servers answer with pages about logins and quotas."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(_WEB_PAGE)


class _Passing(Exception):
    """A fault that another attempt may not meet."""


class _Lasting(Exception):
    """A fault of this address."""


def _complete(target: Path, entry: Weights) -> bool:
    return target.is_file() and entry.size in (None, target.stat().st_size)


def _download(name: str, entry: Weights, target: Path) -> None:
    size = f", {entry.size / 1e6:.0f} MB" if entry.size else ""
    print(f"downloading {name} ({entry.source}{size}); licence: {entry.licence}", flush=True)
    part = target.with_name(f".{target.name}.partial")
    problems = []
    for url in entry.urls:
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE_SECONDS * attempt)
            try:
                resumed = _receive(url, part, entry)
                digest = _check(part, entry, resumed)
            except _Passing as error:
                problem = str(error)
            except _Lasting as error:
                problem = str(error)
                break
            else:
                if entry.sha256 is None:
                    print(f"sha256 {digest}: none is published to compare with; its keys are checked when it is loaded")
                os.replace(part, target)
                _forget(part)
                print(f"saved {target}", flush=True)
                return
        problems.append(f"{url}: {problem}")
    raise UserError(
        f"{name} could not be downloaded ({'; '.join(problems)}); fetch it with a browser and put it at {target}, or "
        f"give the path of your copy"
    )


def _note(part: Path) -> Path:
    """Remembers which version of which address a part belongs to."""
    return part.with_name(f"{part.name}.etag")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _receive(url: str, part: Path, entry: Weights) -> bool:
    """Fetch an address to the end, going on after what is there already; whether there was something."""
    start = part.stat().st_size if part.is_file() else 0
    known = _note(part).read_text().split("\n") if _note(part).is_file() else ["", ""]
    version = known[1] if known[0] == url else ""
    if start and not version:  # of another address, or nothing tells whether the file there is still the same
        start = 0
    if entry.size is not None and start > entry.size:
        start = 0
    if entry.size is not None and start == entry.size:
        return True
    headers = {"User-Agent": "stylegan_inv", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS) as answer:
            if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                start = 0
            _store(answer, url, part, start, entry)
            return start > 0
    except urllib.error.HTTPError as error:
        if error.code == 416:  # the part is longer than the file: begin anew
            _forget(part)
            raise _Passing("the file there is shorter than what was fetched before") from error
        kind = _Passing if error.code in (408, 425, 429) or error.code >= 500 else _Lasting
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError) as error:
        raise _Passing(f"the connection failed ({getattr(error, 'reason', None) or error})") from error


def _store(answer: Any, url: str, part: Path, start: int, entry: Weights) -> None:
    length = answer.headers.get("Content-Length")
    total = start + int(length) if length is not None and length.isdigit() else entry.size
    if entry.size is not None and total != entry.size:
        page = answer.read(256)
        what = "a web page (a quota or login page?)" if is_web_page(page) else f"a file of {total} bytes"
        raise _Lasting(f"answers with {what}, expected {entry.size} bytes")
    if total is not None and shutil.disk_usage(part.parent).free < total - start:
        raise OSError(f"{total - start} bytes are needed")
    with open(part, "ab" if start else "wb") as file, _progress() as progress:
        bar = progress.add_task(entry.file, total=total, completed=start)
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        _note(part).write_text(f"{url}\n{'' if version.startswith('W/') else version}")
        received = start
        while block := answer.read(_CHUNK):
            if received == 0 and is_web_page(block):
                raise _Lasting("answers with a web page (a quota or login page?), expected a file of weights")
            file.write(block)
            received += len(block)
            progress.update(bar, completed=received)
    if total is not None and received != total:
        raise _Passing(f"the connection ended after {received} of {total} bytes")


def _progress() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    console = Console()
    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _check(part: Path, entry: Weights, resumed: bool) -> str:
    digest = file_hash(part)
    if part.stat().st_size == 0:
        raise _Lasting("answers with an empty file")
    if entry.sha256 is not None and not digest.startswith(entry.sha256):
        _forget(part)  # nothing to go on from
        # Two downloads may have been joined that do not belong together; a whole one would come the same again.
        kind = _Passing if resumed else _Lasting
        raise kind(f"gives a file with sha256 {digest}, expected {entry.sha256}")
    return digest
