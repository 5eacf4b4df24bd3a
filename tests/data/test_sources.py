"""Sources of images, compared with archives written by other libraries, and the rejection of unsafe archives."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage
from stylegan_inv.data.sources.class_labels import parse_classes
from stylegan_inv.data.sources.lmdb_file import value_locations
from stylegan_inv.data.sources.name_lists import read_names
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.source import CompactStrings, Source
from stylegan_inv.errors import UserError

NAMES = ["a/1.png", "a/2.png", "a/10.png", "b/3.png", "b/x y.png"]


def encoded_image(seed: int, size: int = 8, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


IMAGES = {name: encoded_image(number) for number, name in enumerate(NAMES)}


def write_folder(path: Path) -> Path:
    for name, data in IMAGES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_zip(path: Path, method: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in reversed({**IMAGES, **more}.items()):
            archive.writestr(name, data)
    return path


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def write_lmdb(path: Path, entries: dict[bytes, bytes]) -> Path:
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, value in entries.items():
            transaction.put(key, value)
    return path


def rosinality(sizes: tuple[int, ...] = (8,), count: int = 5) -> dict[bytes, bytes]:
    entries = {b"%d-%05d" % (size, i): encoded_image(i, size) for size in sizes for i in range(count)}
    return {**entries, b"length": str(count).encode()}


def contents(source: Source) -> dict[str, bytes]:
    return {name: source.read(index) for index, name in enumerate(source.names)}


# -- reading -----------------------------------------------------------------------------------------------------------


def test_folder_zip_and_shards_give_the_same_files(tmp_path: Path) -> None:
    places = [
        write_folder(tmp_path / "folder"),
        write_zip(tmp_path / "stored.zip"),
        write_zip(tmp_path / "deflated.zip", zipfile.ZIP_DEFLATED),
        write_tar(tmp_path / "one.tar", {name.replace(" ", "_"): IMAGES[name] for name in NAMES}),
    ]
    for place in places:
        got = contents(open_source(place))
        assert list(got.values()) == list(IMAGES.values()), place
        assert [name.replace("_", " ") for name in got] == NAMES


def test_webdataset_samples_over_several_shards(tmp_path: Path) -> None:
    """The shards are as the webdataset package writes them: the name of a sample ends at the first dot."""
    shards = pytest.importorskip("webdataset").ShardWriter(
        f"file:{tmp_path}/data-%06d.tar",
        maxcount=2,
        opener=lambda path: open(path.removeprefix("file:"), "wb"),
        verbose=0,
    )
    for number, data in enumerate(IMAGES.values()):
        sample = {
            "__key__": f"s/{number:04d}",
            "png": data,
            "mask.png": encoded_image(99),
            "json": {"n": number},
            "cls": number,
        }
        shards.write(sample)
    shards.close()
    for place in (tmp_path, f"{tmp_path}/data-{{000000..000002}}.tar", f"{tmp_path}/data-*.tar"):
        source = open_source(place)
        assert source.names == [f"s/{number:04d}.png" for number in range(5)]
        assert list(contents(source).values()) == list(IMAGES.values())
    with pytest.raises(UserError, match=r"1 of 4 shards are missing: data-000003.tar"):
        open_source(f"{tmp_path}/data-{{000000..000003}}.tar")


def test_rosinality_lmdb_opens_the_required_size(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "faces", rosinality((8, 16, 64)))
    for required, size in ((4, 8), (8, 8), (9, 16), (64, 64), (100, 64)):
        source = open_source(path, required)
        assert list(contents(source).values()) == [encoded_image(i, size) for i in range(5)]
    assert contents(open_source(path / "data.mdb", 8)) == contents(open_source(path, 8))


def test_lsun_lmdb_has_hashes_as_names(tmp_path: Path) -> None:
    entries = {bytes([97 + i]) * 40: encoded_image(i, kind="WEBP") for i in range(3)}
    source = open_source(write_lmdb(tmp_path / "church_outdoor_train_lmdb", {**entries, b"\xff/..": encoded_image(9)}))
    assert [name[:2] for name in source.names] == ["aa", "bb", "cc", "ff"] and source.names[3] == "ff2f2e2e.webp"
    assert list(contents(source).values())[:3] == list(entries.values())


@given(
    st.dictionaries(st.binary(min_size=1, max_size=200), st.integers(0, 20_000), max_size=60),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lmdb_value_locations_match_the_lmdb_library(tmp_path_factory, lengths, order: random.Random) -> None:
    path = tmp_path_factory.mktemp("lmdb")
    entries = {key: bytes([len(key) % 256]) * length for key, length in lengths.items()}
    keys = list(entries)
    order.shuffle(keys)
    with lmdb.open(str(path), map_size=1 << 24) as environment:
        for part in (keys[::2], keys[1::2]):  # pages that later transactions no longer use
            with environment.begin(write=True) as transaction:
                for key in part:
                    transaction.put(key, b"old" * 2000)
                    transaction.put(key, entries[key])
    file = (path / "data.mdb").read_bytes()
    found = {key: file[offset : offset + length] for key, offset, length in value_locations(path / "data.mdb")}
    assert found == entries and list(found) == sorted(entries)


def test_list_of_images_and_one_image(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "list.txt").write_text("\ufeffb/3.png\n\n./a/10.png\r\n")
    source = open_source(tmp_path / "list.txt")
    assert contents(source) == {name: IMAGES[name] for name in ("b/3.png", "a/10.png")}
    assert contents(open_source(tmp_path / "a/2.png")) == {"2.png": IMAGES["a/2.png"]}


def test_sources_work_in_other_processes(tmp_path: Path) -> None:
    """A source can be pickled for a spawned worker, and used on both sides of a fork at the same time."""
    places = [
        write_zip(tmp_path / "a.zip"),
        write_tar(tmp_path / "a.tar", IMAGES),
        write_lmdb(tmp_path / "l", rosinality()),
    ]
    for source in map(open_source, places):
        want = contents(source)
        assert contents(pickle.loads(pickle.dumps(source))) == want
        if child := os.fork():
            assert contents(source) == want
            assert os.waitpid(child, 0)[1] == 0
        else:
            os._exit(contents(source) != want)


def test_subset(tmp_path: Path) -> None:
    some = open_source(write_zip(tmp_path / "a.zip")).subset([3, 0])
    assert contents(some) == {name: IMAGES[name] for name in ("b/3.png", "a/1.png")} and some.where(0).endswith(
        "b/3.png"
    )
    names = CompactStrings(["ä", "", "b\udcff"])
    assert list(names) == ["ä", "", "b\udcff"] and names[1:] == ["", "b\udcff"] and names[-1] == "b\udcff"
    with pytest.raises(IndexError):
        names[3]


# -- classes -----------------------------------------------------------------------------------------------------------


def test_classes_of_nvidia_zip(tmp_path: Path) -> None:
    labels = [[name, number % 3] for number, name in enumerate(NAMES)]
    source = open_source(write_zip(tmp_path / "a.zip", **{"dataset.json": json.dumps({"labels": labels}).encode()}))
    assert source.classes is not None and source.classes.tolist() == [0, 1, 2, 0, 1]
    assert source.subset([4, 2]).classes.tolist() == [1, 2]
    hot = {"labels": [[name, [0.0, 1.0, 0.0]] for name in NAMES]}
    assert parse_classes(json.dumps(hot).encode(), "x", NAMES).tolist() == [1] * 5
    assert parse_classes(b'{"labels": null}', "x", NAMES) is None


@pytest.mark.parametrize(
    "content, message",
    [
        (b"{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"labels": [["a/1.png"]]}', "expected"),
        (b'{"labels": {"a/1.png": 1}}', "expected"),
        (b'{"labels": [["a/1.png", 1]]}', "no class for 4 of 5 images: a/2.png"),
        (json.dumps({"labels": [[n, 0] for n in [*NAMES, "no.png"]]}).encode(), "1 images that do not exist: no.png"),
        (json.dumps({"labels": [[n, 1.5] for n in NAMES]}).encode(), "class 1.5"),
        (json.dumps({"labels": [[n, [1, 1]] for n in NAMES]}).encode(), "one-hot"),
        (b'{"labels": [["a/1.png", ' + b"9" * 5000 + b"]]}", "not valid JSON|class 9999"),
    ],
)
def test_invalid_classes(tmp_path: Path, content: bytes, message: str) -> None:
    source = open_source(write_zip(tmp_path / "a.zip", **{"dataset.json": content}))
    assert len(source) == len(NAMES)  # nothing reads the classes yet
    with pytest.raises(UserError, match=message):
        source.subset([0, 1]).classes  # noqa: B018
    for name in NAMES:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "a.zip", tmp_path / "folder" / name)
    (tmp_path / "folder" / "dataset.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "folder").classes  # noqa: B018


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["labels", "x"]), inner, max_size=2),
    max_leaves=5,
)


@given(ANY | st.binary(max_size=50))
@settings(deadline=None, max_examples=100)
def test_any_dataset_json_is_read_or_raises_user_error(content) -> None:
    texts = [content] if isinstance(content, bytes) else [json.dumps(content), json.dumps({"labels": content})]
    for text in texts:
        try:
            assert parse_classes(text if isinstance(text, bytes) else text.encode(), "x", NAMES) is None
        except UserError as error:
            assert "\n" not in str(error)


# -- unsafe and damaged archives ---------------------------------------------------------------------------------------

ESCAPES = ["../x.png", "/etc/x.png", "a/../../x.png", "C:/x.png", "a\\..\\x.png", "a//x.png", "./../x.png", "a/\n.png"]


@pytest.mark.parametrize("name", ESCAPES)
def test_names_that_lead_out_of_a_folder_are_rejected(tmp_path: Path, name: str) -> None:
    def rejected(path: Path) -> None:
        with pytest.raises(UserError, match="rejected, as the name") as error:
            open_source(path)
        assert "\n" not in str(error.value)

    rejected(write_zip(tmp_path / "a.zip", **{name: encoded_image(1)}))
    if name != "./../x.png":
        rejected(write_tar(tmp_path / "a.tar", {name: encoded_image(1)}))
    if "\n" not in name:
        (tmp_path / "list.txt").write_text(name.removeprefix("./") + "\n")  # may name any file; results stay inside
        (inside,) = open_source(tmp_path / "list.txt").names
        assert not inside.startswith("/") and ".." not in inside.split("/")
    entries = {**rosinality(count=1), b"manifest": json.dumps({"images": {name: ""}}).encode()}
    rejected(write_lmdb(tmp_path / "l", entries))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE]
)
def test_links_and_devices_in_tars_are_rejected(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(UserError, match="a.tar: (rejected, as 'a.png' is a link, device|damaged tar)"):
        open_source(tmp_path / "a.tar")


def test_links_in_zips_are_rejected(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        entry = zipfile.ZipInfo("a.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="rejected, as 'a.png' is a link"):
        open_source(tmp_path / "a.zip")


def test_zip_bombs_are_rejected(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, **{"z.png": bytes(20 << 20)})
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"rejected, as 'z.png' would unpack from [0-9,]+ to 20,971,520 bytes"):
        open_source(path)
    data = bytearray(write_zip(tmp_path / "b.zip", zipfile.ZIP_DEFLATED, **{"z.png": bytes(1000)}).read_bytes())
    # The directory may claim less than the stream holds; only the claimed size is unpacked.
    size = data.rindex(b"z.png") - 22
    data[size : size + 4] = (10).to_bytes(4, "little")
    (tmp_path / "b.zip").write_bytes(data)
    source = open_source(tmp_path / "b.zip")
    with pytest.raises(BadImage, match=r"z.png: damaged in the zip"):
        source.read(source.names.index("z.png"))


@pytest.mark.parametrize(
    "claim", [(7 << 20, 10), (7 << 20, 7 << 20), (1 << 40, 1 << 40), (1 << 63, 1 << 63), (2**64 - 1, 5)]
)
def test_sizes_in_a_zip_are_compared_with_the_file(claim: tuple[int, int], tmp_path: Path) -> None:
    """A directory that claims too much is an error of that image, which ``on_bad_image=skip`` leaves out."""
    path = write_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.getinfo(NAMES[1]).compress_size, archive.getinfo(NAMES[1]).file_size = claim
        archive.writestr("more.txt", b"")  # the directory is written again
    source = open_source(path)
    assert len(source.names) == len(NAMES)
    for index, name in enumerate(source.names):
        if name == NAMES[1]:
            with pytest.raises(BadImage, match=r"a/2.png: damaged in the zip \(it claims"):
                source.read(index)
        else:
            assert source.read(index) == IMAGES[name]


def test_classes_in_a_zip_inflate_no_further_than_they_claim(tmp_path: Path) -> None:
    text = b'{"labels": null}' + b" " * (200 << 20)
    path = write_zip(tmp_path / "a.zip", zipfile.ZIP_DEFLATED, **{"dataset.json": text})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.getinfo("dataset.json").file_size = 16
        archive.writestr("more.txt", b"")
    del text
    tracemalloc.start()
    with pytest.raises(UserError, match="dataset.json is damaged"):
        _ = open_source(path).classes
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def test_header_that_claims_more_than_the_file_has(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.png")
    member.size = 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match=r"claims 1,099,511,627,776 bytes"):
        open_source(tmp_path / "a.tar")


def test_other_invalid_archives(tmp_path: Path) -> None:
    def check_error(message: str, path: Path | str) -> None:
        with pytest.raises(UserError, match=message):
            open_source(path)

    write_zip(tmp_path / "ok.zip")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "ok.zip").read_bytes()[:-30])
    check_error("cut.zip: damaged zip", tmp_path / "cut.zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    check_error("empty.zip: holds no images", tmp_path / "empty.zip")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        for _ in range(2):
            archive.writestr("a.png", encoded_image(1))
    check_error("1 of 2 images occur twice: a.png", tmp_path / "twice.zip")
    write_zip(tmp_path / "bz.zip", zipfile.ZIP_BZIP2)
    check_error("packed by method 12; expected a stored or deflated zip", tmp_path / "bz.zip")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    (tmp_path / "a.tar.gz").rename(tmp_path / "gz.tar")
    check_error("gz.tar: is compressed", tmp_path / "gz.tar")
    write_tar(tmp_path / "two.tar", {"a.left.png": encoded_image(1), "a.right.png": encoded_image(2)})
    check_error("the sample 'a' has 2 images", tmp_path / "two.tar")
    (tmp_path / "x.rar").touch()
    check_error("is a .rar, expected a folder of images, a .zip, an LMDB", tmp_path / "x.rar")
    check_error("range of at most", f"{tmp_path}/{{0..99999999}}.tar")
    check_error("no such shards", f"{tmp_path}/none-*.tar")
    check_error("nowhere: no such folder", tmp_path / "nowhere")


@pytest.mark.parametrize("length", [b"", b"-1", b"1e3", b"99999999999", b"7", b"\xd9\xa3", b"0", b"3\n"])
def test_lmdb_with_invalid_length(tmp_path: Path, length: bytes) -> None:
    path = write_lmdb(tmp_path / "l", {**rosinality(), b"length": length})
    with pytest.raises(UserError, match="'length' is .*, expected 1 to 6|has no 8-00005"):
        open_source(path)


def test_lmdb_with_missing_images(tmp_path: Path) -> None:
    entries = rosinality()
    del entries[b"8-00002"]
    with pytest.raises(UserError, match="expected 1 to 5|no 8-00002 .1 of 5"):
        open_source(write_lmdb(tmp_path / "l", entries))
    with pytest.raises(UserError, match="no key like 256-00000"):
        open_source(write_lmdb(tmp_path / "m", {b"length": b"1"}))


def damaged(good: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Returns file contents with some bytes changed, one of four also truncated."""
    for attempt in range(count):
        data = bytearray(good)
        if attempt % 4 == 0:
            del data[int(rng.integers(len(data))) :]
        for place in rng.integers(0, len(data), 1 + attempt % 40) if data else ():
            data[place] = rng.integers(256)
        yield bytes(data)


def test_damaged_lmdbs_never_kill_the_process(tmp_path: Path) -> None:
    """Some of these files kill a process that opens them with the LMDB library, which is why it is not used here."""
    good = (write_lmdb(tmp_path / "l", rosinality((8, 16), 40)) / "data.mdb").read_bytes()
    path = tmp_path / "data.mdb"
    rng = np.random.default_rng(0)
    refused = 0
    for data in damaged(good, rng, 200):
        path.write_bytes(data)
        try:
            source = open_source(path, 8)
            contents(source)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 50


@pytest.mark.parametrize("suffix", ["zip", "tar"])
def test_damaged_archives_raise_user_errors_only(tmp_path: Path, suffix: str) -> None:
    make = {"zip": write_zip, "tar": lambda path: write_tar(path, IMAGES)}[suffix]
    good, rng = make(tmp_path / f"a.{suffix}").read_bytes(), np.random.default_rng(1)
    path = tmp_path / f"b.{suffix}"
    for data in damaged(good, rng, 120):
        path.write_bytes(data)
        try:
            contents(open_source(path))
        except UserError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")))
@settings(deadline=None, max_examples=150)
def test_any_list_of_images_is_read_or_raises_user_error(tmp_path_factory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(data)
    try:
        names = read_names(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    for name in names:
        assert (Path("/safe") / name).resolve().is_relative_to("/safe") and len(name) == len(name.strip())


@given(st.dictionaries(st.binary(min_size=1, max_size=30), st.binary(max_size=60), max_size=6))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_entries_of_an_lmdb_are_read_or_raise_user_error(tmp_path_factory, entries: dict[bytes, bytes]) -> None:
    path = write_lmdb(tmp_path_factory.mktemp("l"), {b"length": b"1", b"8-00000": b"", **entries})
    try:
        assert len(contents(open_source(path, 8))) == 1
    except UserError as error:
        assert "\n" not in str(error)
