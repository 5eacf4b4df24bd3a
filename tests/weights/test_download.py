"""Downloads from a local server: resuming, checks, mirrors, and no partial files in the cache."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from stylegan_inv import load_generator
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, save_generator
from stylegan_inv.weights import download as weights
from stylegan_inv.weights.download import TABLE, fetch
from stylegan_inv.weights.table import Weights

DATA = bytes(range(256)) * 8000  # two megabytes: several reads
SHA = hashlib.sha256(DATA).hexdigest()
PAGE = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>"


@dataclass
class File:
    """The response of the server for one path, and its requests."""

    data: bytes = DATA
    cuts: list[int] = field(default_factory=list)  # answers that end after so many bytes
    codes: list[int] = field(default_factory=list)  # answers that are errors
    ranges: bool = True
    etag: str = '"1"'
    asked: list[str] = field(default_factory=list)


class Server:
    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        files = self.files

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                file = files.get(self.path)
                if file is None:
                    return self.send_error(404)
                wanted = self.headers.get("Range", "")
                file.asked.append(wanted)
                if file.codes:
                    return self.send_error(file.codes.pop(0))
                start = 0
                if wanted and file.ranges and self.headers.get("If-Range") in (None, file.etag):
                    start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])
                    if start >= len(file.data):
                        return self.send_error(416)
                    self.send_response(206)
                    self.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
                else:
                    self.send_response(200)
                self.send_header("Content-Length", str(len(file.data) - start))
                if file.etag:
                    self.send_header("ETag", file.etag)
                self.end_headers()
                body = file.data[start:]
                if file.cuts:
                    body = body[: file.cuts.pop(0)]
                self.wfile.write(body)
                self.close_connection = True

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def add(self, path: str, **content: object) -> tuple[str, File]:
        self.files[path] = File(**content)
        return f"http://127.0.0.1:{self.http.server_port}{path}", self.files[path]

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(weights, "PAUSE_SECONDS", 0.0)
    monkeypatch.delenv("STYLEGAN_INV_OFFLINE", raising=False)


@pytest.fixture
def known(monkeypatch):
    """Adds an entry to the table."""

    def add(*urls: str, size: int | None = len(DATA), sha256: str | None = SHA) -> None:
        entry = Weights("file.pkl", urls, "a licence", "somebody/something", "generator", size, sha256)
        monkeypatch.setitem(TABLE, "thing", entry)

    return add


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith((".lock", ".sha256")))


def test_downloaded_once(server, known, tmp_path, capsys):
    url, file = server.add("/f")
    known(url)
    path = fetch("thing", cache=tmp_path / "cache")
    assert path.read_bytes() == DATA and left(path.parent) == ["file.pkl"]
    out = capsys.readouterr().out
    assert "downloading thing (somebody/something, 2 MB); licence: a licence" in out
    assert fetch("thing", cache=tmp_path / "cache") == path and len(file.asked) == 1
    path.write_bytes(DATA[:100])  # somebody cut it
    assert fetch("thing", cache=tmp_path / "cache").read_bytes() == DATA


def test_local_files_are_returned_unchanged(tmp_path):
    (tmp_path / "mine.pt").write_bytes(b"x")
    assert fetch(tmp_path / "mine.pt", offline=True) == tmp_path / "mine.pt"
    with pytest.raises(UserError, match=r"nothing.pt: no such file, and not one of the known weights \(stylegan2-ffhq"):
        fetch(tmp_path / "nothing.pt")


@pytest.mark.parametrize("sha256", [SHA, SHA[:8], None])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_interrupted_downloads_are_resumed(sha256, size, server, known, tmp_path, capsys):
    url, file = server.add("/f", cuts=[700_000, 500_000])
    known(url, size=size, sha256=sha256)
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA
    assert file.asked == ["", "bytes=700000-", "bytes=1200000-"]
    assert left(tmp_path) == ["file.pkl"]
    assert (f"sha256 {SHA}: no hash is published" in capsys.readouterr().out) == (sha256 is None)


def test_a_later_call_resumes_the_download(server, known, tmp_path):
    url, file = server.add("/f", cuts=[400_000, 0, 0])
    known(url)
    with pytest.raises(UserError, match="the connection ended after 400000 of 2048000 bytes") as info:
        fetch("thing", cache=tmp_path)
    assert str(tmp_path / "file.pkl") in str(info.value) and url in str(info.value) and "\n" not in str(info.value)
    assert not (tmp_path / "file.pkl").exists()
    file.asked.clear()
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA
    assert file.asked == ["bytes=400000-"]


def test_a_changed_file_is_downloaded_again(server, known, tmp_path):
    url, file = server.add("/f", data=bytes(len(DATA)), cuts=[400_000, 0, 0])
    known(url, sha256=None)
    with pytest.raises(UserError):
        fetch("thing", cache=tmp_path)
    file.data, file.etag = DATA, '"2"'
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("faults", [{"ranges": False}, {"etag": ""}, {"etag": 'W/"1"'}])
def test_servers_that_cannot_resume(faults, server, known, tmp_path):
    url, _ = server.add("/f", cuts=[700_000], **faults)
    known(url)
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA


def test_a_partial_download_of_another_file_is_discarded(server, known, tmp_path):
    url, file = server.add("/f", cuts=[400_000, 0, 0])
    known(url)
    with pytest.raises(UserError):
        fetch("thing", cache=tmp_path)
    part = tmp_path / ".file.pkl.partial"
    part.write_bytes(b"x" * 400_000)  # as long, with other content: the hash of the whole tells
    file.asked.clear()
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA
    assert file.asked == ["bytes=400000-", ""]


def test_mirrors_in_order(server, known, tmp_path):
    quota, _ = server.add("/quota", data=PAGE)
    wrong, asked_wrong = server.add("/wrong", data=bytes(len(DATA)))
    good, _ = server.add("/good")
    missing = good.replace("/good", "/missing")
    known(missing, quota, wrong, good)
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA
    assert len(asked_wrong.asked) == 1  # the wrong file would come again
    (tmp_path / "file.pkl").unlink()
    known(missing, quota, wrong)
    with pytest.raises(UserError) as info:
        fetch("thing", cache=tmp_path)
    for text in ("HTTP 404", "a web page (a quota or login page?)", f"expected {SHA}", "download it with a browser"):
        assert text in str(info.value)
    assert left(tmp_path) == []


@pytest.mark.parametrize("size", [None, len(PAGE)])
def test_web_pages_are_not_stored(size, server, known, tmp_path):
    url, _ = server.add("/f", data=b"\n " + PAGE)
    known(url, size=size and size + 2, sha256=None)
    with pytest.raises(UserError, match="returned a web page"):
        fetch("thing", cache=tmp_path)
    assert not (tmp_path / "file.pkl").exists()


def test_temporary_errors_are_retried(server, known, tmp_path):
    url, file = server.add("/f", codes=[503, 429])
    known(url)
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA and len(file.asked) == 3
    refused, file = server.add("/refused", codes=[403, 403])
    (tmp_path / "file.pkl").unlink()
    known(refused)
    with pytest.raises(UserError, match="HTTP 403"):
        fetch("thing", cache=tmp_path)
    assert len(file.asked) == 1


def test_no_connection(known, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    known(f"http://127.0.0.1:{port}/f")
    with pytest.raises(UserError, match="the connection failed"):
        fetch("thing", cache=tmp_path)


def test_empty_file(server, known, tmp_path):
    url, _ = server.add("/f", data=b"")
    known(url, size=None, sha256=None)
    with pytest.raises(UserError, match="empty file"):
        fetch("thing", cache=tmp_path)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_offline_makes_no_request(by, server, known, tmp_path, monkeypatch):
    url, file = server.add("/f")
    known(url)
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path))
    monkeypatch.setenv("STYLEGAN_INV_OFFLINE", "1" if by == "environment" else "0")
    offline = True if by == "argument" else None
    with pytest.raises(UserError, match="downloads are switched off: put the file at .*weights/file.pkl") as info:
        fetch("thing", offline=offline)
    assert url in str(info.value) and not file.asked
    (tmp_path / "weights").mkdir(exist_ok=True)
    (tmp_path / "weights" / "file.pkl").write_bytes(DATA[::-1])
    with pytest.raises(UserError, match="file.pkl is not the published thing and downloads are switched off"):
        fetch("thing", offline=offline)
    (tmp_path / "weights" / "file.pkl").write_bytes(DATA)
    assert fetch("thing", offline=offline).read_bytes() == DATA and not file.asked


def test_downloads_are_forbidden_inside_the_context_only(monkeypatch):
    for before in (None, "1", "0"):
        if before is None:
            monkeypatch.delenv("STYLEGAN_INV_OFFLINE", raising=False)
        else:
            monkeypatch.setenv("STYLEGAN_INV_OFFLINE", before)
        for value in (True, False, None):
            with pytest.raises(ZeroDivisionError), weights.downloads(value):
                assert weights.offline_wanted() is (before == "1" if value is None else value)
                raise ZeroDivisionError
            assert os.environ.get("STYLEGAN_INV_OFFLINE") == before
    with (
        pytest.raises(UserError, match="weights.offline='never': expected true, false or null"),
        weights.downloads("never"),
    ):
        pass


def test_concurrent_processes_download_once(server, known, tmp_path):
    url, file = server.add("/f")
    known(url)
    threads = [threading.Thread(target=fetch, args=("thing",), kwargs={"cache": tmp_path}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.asked) == 1 and (tmp_path / "file.pkl").read_bytes() == DATA


def test_full_disk_and_read_only_cache(server, known, tmp_path, monkeypatch):
    url, _ = server.add("/f")
    known(url)
    usage = weights.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="cannot be written to .*2048000 bytes of free space are.*STYLEGAN_INV_CACHE"):
        fetch("thing", cache=tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="cannot be written to"):
        fetch("thing", cache=tmp_path / "file" / "cache")


def test_load_generator_by_name(server, known, tmp_path, monkeypatch):
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path))
    generator = Generator(8, z_dim=4, w_dim=5, channels={4: 3, 8: 2})
    save_generator(generator, tmp_path / "g.safetensors")
    data = (tmp_path / "g.safetensors").read_bytes()
    url, _ = server.add("/g", data=data)
    known(url, size=None, sha256=hashlib.sha256(data).hexdigest())
    assert torch.equal(load_generator("thing").synthesis.b4.const, generator.synthesis.b4.const)
    assert load_generator("thing", offline=True).resolution == 8


def test_files_in_the_cache_are_compared_by_their_hash(server, known, tmp_path):
    """A file of the right size with another content is not used."""
    url, file = server.add("/f")
    known(url)
    path = fetch("thing", cache=tmp_path)
    path.write_bytes(b"x" * len(DATA))
    assert fetch("thing", cache=tmp_path).read_bytes() == DATA and len(file.asked) == 2
    path.write_bytes(b"x" * len(DATA))
    with pytest.raises(UserError, match="is not the published thing"):
        fetch("thing", cache=tmp_path, offline=True)


@pytest.mark.parametrize("sha256", [None, SHA[:8]])
def test_a_hash_that_is_not_published_whole_is_noted(sha256, server, known, tmp_path):
    url, _ = server.add("/f")
    known(url, size=None, sha256=sha256)
    path = fetch("thing", cache=tmp_path)
    assert (tmp_path / ".file.pkl.sha256").read_text().strip() == SHA
    assert fetch("thing", cache=tmp_path, offline=True) == path
    if sha256 is None:  # nothing else tells that it is another file
        path.write_bytes(b"x" * len(DATA))
        with pytest.raises(UserError, match="has changed since it was downloaded"):
            fetch("thing", cache=tmp_path)
    # A file that was put there by hand is noted, too.
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand" / "file.pkl").write_bytes(DATA)
    fetch("thing", cache=tmp_path / "hand", offline=True)
    assert (tmp_path / "hand" / ".file.pkl.sha256").read_text().strip() == SHA


def test_a_whole_hash_is_compared_whole(server, known, tmp_path):
    url, _ = server.add("/f")
    known(url, sha256=SHA[:8] + "0" * 56)
    with pytest.raises(UserError, match="expected " + SHA[:8]):
        fetch("thing", cache=tmp_path)


def test_redirects_stay_encrypted():
    handler = weights._SecureRedirects()
    request = urllib.request.Request("https://example.org/x")
    for url in ("http://example.org/y", "ftp://example.org/y"):
        with pytest.raises(weights._PermanentError, match="not encrypted"):
            handler.redirect_request(request, None, 302, "Found", {}, url)
    moved = handler.redirect_request(request, None, 302, "Found", {}, "https://example.org/y")
    assert moved.full_url == "https://example.org/y"


@pytest.mark.parametrize("length", [None, "²", "9" * 5000, str(10**14)])
def test_answers_without_end_are_cut(length, known, tmp_path, monkeypatch):
    """A server that states no length, or an absurd one, fills no disk."""
    monkeypatch.setattr(weights, "_MOST_BYTES", 3 << 20)
    sent = []

    class Answer:
        status, headers = 200, {} if length is None else {"Content-Length": length}

        def read(self, count: int) -> bytes:
            sent.append(count)
            return b"x" * count

        def __enter__(self) -> Answer:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *_, **__: Answer())
    known("https://example.org/x", size=None, sha256=None)
    with pytest.raises(UserError, match="bytes"):
        fetch("thing", cache=tmp_path)
    assert sum(sent) <= 5 << 20


def test_the_table():
    """Checks that need no network."""
    for name, entry in TABLE.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert entry.holds in ("generator", "encoder", "network") and entry.licence and entry.source
        assert entry.urls and all(url.startswith("https://") for url in entry.urls)
        assert entry.sha256 is None or re.fullmatch(r"[0-9a-f]{8,64}", entry.sha256)
        assert "/" not in entry.file
    files = [entry.file for entry in TABLE.values()]
    urls = [url for entry in TABLE.values() for url in entry.urls]
    assert len(set(files)) == len(files) and len(set(urls)) == len(urls)
