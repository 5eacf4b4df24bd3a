"""Small files that hand the same data to many names, and archives in which two readers find different entries."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from stylegan_inv.encoders.official import official_checkpoint
from stylegan_inv.generators import load_discriminator, load_generator
from stylegan_inv.generators.io.pickle_machine import Record, RefusedPickle, check_key
from stylegan_inv.generators.io.pickle_objects import plain
from stylegan_inv.generators.io.torch_pickle import load_checked
from stylegan_inv.generators.io.weight_files import read_weights
from stylegan_inv.runtime.checkpoint_io import read_checkpoint
from tests.generators.refusals import refused

pytestmark = pytest.mark.usefixtures("at_once")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def int32(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def archive(*entries: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in entries:
            file.writestr(name, content)
    return stream.getvalue()


def checkpoint(path: Path, instructions: bytes) -> Path:
    """A checkpoint whose pickle does something and then holds an empty ``state_dict``."""
    data = b"\x80\x02" + instructions + b"0}" + text("state_dict") + b"}s."
    path.write_bytes(archive(("x/data.pkl", data), ("x/data/0", bytes(4)), ("x/version", b"3\n")))
    return path


def repeated(function: bytes, argument: bytes, times: int) -> bytes:
    """Calls a function many times with the same arguments, and keeps the results."""
    return argument + b"\x85q\x010c" + function + b"q\x020(" + b"h\x02h\x01R" * times + b"l"


LONG_LIST = b"(" + b"".join(map(int32, range(20_000))) + b"l"
DOUBLED = {
    name: text("x" * 10) + b"q\x01" + (b"0c" + name.replace(".", "\n").encode() + b"\nh\x01h\x01\x86Rq\x01") * 27
    for name in ("torch.device", "pathlib.PosixPath")
}
SHARED = {
    "tuples of a list": repeated(b"torch\nSize\n", LONG_LIST, 20_000),
    "sets of a list": repeated(b"builtins\nset\n", LONG_LIST, 20_000),
    "joined texts": text("x" * 100_000) + b"q\x010ctorch\ndevice\n(" + b"h\x01" * 20_000 + b"tR",
    "bytes of a text": text("x" * 100_000)
    + b"q\x010"
    + text("latin1")
    + b"q\x030c_codecs\nencode\nq\x02("
    + b"h\x02h\x01h\x03\x86R" * 20_000
    + b"l",
}


@pytest.mark.parametrize("name", [*DOUBLED, *SHARED])
def test_functions_copy_no_more_than_the_file_holds(name: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "x.ckpt", {**DOUBLED, **SHARED}[name])
    for read in (read_checkpoint, read_weights):
        assert "times as much data" in refused(read, path)


def tensor(shape: bytes, stride: bytes) -> bytes:
    storage = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQK\x00"
    return b"ctorch._utils\n_rebuild_tensor_v2\n((" + storage + shape + stride + b"\x89}tR"


def numpy_array(shape: bytes, data: bytes) -> bytes:
    dtype = b"cnumpy\ndtype\n" + text("f4") + b"\x85R(K\x03" + text("<") + b"NNNtb"
    start = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01"
    return start + shape + dtype + b"\x89B" + struct.pack("<I", len(data)) + data + b"tb"


def test_shapes_have_few_axes(tmp_path: Path) -> None:
    """The product of 200,000 numbers of 120 bits takes minutes."""
    number = b"\x8a\x0f" + b"\xff" * 14 + b"\x7f"
    many = b"(" + number + b"q\x05" + b"h\x05" * 200_000 + b"t"
    zeros = b"(" + b"K\x00" * 200_001 + b"t"
    refused(read_checkpoint, checkpoint(tmp_path / "x.ckpt", tensor(many, zeros)))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + numpy_array(many, bytes(4)) + b".")
    refused(read_weights, tmp_path / "x.pkl")


def test_an_array_of_many_names_is_one_tensor(tmp_path: Path) -> None:
    array = numpy_array(int32(1 << 16) + b"\x85", bytes(1 << 18)) + b"q\x01"
    entries = b"".join(text(f"k{number}") + b"h\x01" for number in range(5000))
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + array + b"0}" + text("state_dict") + b"}(" + entries + b"us.")
    state = read_weights(tmp_path / "x.pkl")[0]["state_dict"]
    assert len(state) == 5000 and len({value.data_ptr() for value in state.values()}) == 1

    # The layout of TensorFlow's variables is another one, so that each is copied.
    network = b"cdnnlib.tflib.network\nNetwork\n)\x81"
    variables = b"".join(text(f"v{number}") + b"h\x01\x86" for number in range(5000))
    first = network + b"}" + text("variables") + b"(" + variables + b"lsb"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x03" + array + b"0(" + first + (network + b"}b") * 2 + b"t.")
    assert "times as large" in refused(read_weights, tmp_path / "x.pkl")


def test_texts_in_options_and_names_are_counted() -> None:
    long = "x" * 100_000
    for value in ([long] * 1000, {"a": [long.encode()] * 1000}, [{long: 1}] * 1000):
        with pytest.raises(RefusedPickle, match="characters"):
            plain(value)
    for key in ((long, 1), (1,) * 9):
        with pytest.raises(RefusedPickle):
            check_key(key)


def test_names_of_modules_do_not_add_up(tmp_path: Path) -> None:
    from stylegan_inv.generators.io.nvidia_pickle import networks

    module = Record("Linear", {"_parameters": {"x" * 2000: torch.zeros(1)}, "_modules": {}})
    with pytest.raises(RefusedPickle, match="characters"):
        networks({"G": Record("Sequential", {"_modules": {"a": module}})}, 1000)


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 11, "99999"])
def test_numbers_in_names_are_short(number: str, tmp_path: Path) -> None:
    """A layer of that number belongs to an image of 2 ** number pixels."""
    for load, names in (
        (load_generator, ["conv1.conv.weight", f"convs.{number}.conv.weight", f"noises.noise_{number}"]),
        (load_discriminator, ["final_linear.0.weight", f"convs.{number}.conv1.0.weight"]),
    ):
        save_file({name: torch.zeros(1) for name in names}, tmp_path / "x.safetensors")
        assert "at most four digits" in refused(load, tmp_path / "x.safetensors")


def end_of_zip64(count: int, size: int, offset: int) -> bytes:
    return b"PK\x06\x06" + struct.pack("<QHHLLQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)


def moved(directory: bytes, distance: int) -> bytes:
    out, at = bytearray(directory), 0
    while at < len(out):
        lengths = struct.unpack_from("<HHH", out, at + 28)
        struct.pack_into("<L", out, at + 42, struct.unpack_from("<L", out, at + 42)[0] + distance)
        at += 46 + sum(lengths)
    return bytes(out)


def with_two_contents() -> dict[str, bytes]:
    """Files in which Python's zip reader finds one pickle and PyTorch's another one."""
    good, other = (archive(("x/data.pkl", pickle.dumps({"is": name}, 2)), ("x/version", b"3")) for name in "ab")
    count, size, at = struct.unpack_from("<HLL", good, good.rfind(b"PK\x05\x06") + 10)
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    legacy = b"".join(pickle.dumps(part, 3) for part in (0x1950A86A20F9469CFC6C, 1001, system, {"is": "b"}, []))
    body = other[: at + size] + end_of_zip64(count, size, at)
    second = body + good[:at] + moved(good[at : at + size], len(body)) + end_of_zip64(count, size, len(body) + at)
    locator = b"PK\x06\x07" + struct.pack("<LQL", 0, at + size, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHLLH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return {
        "older format before a zip": legacy + good,
        "two directories": second + locator + end,
        "a zip before a zip": other[: at + size] + good,
    }


@pytest.mark.parametrize("name", with_two_contents())
def test_what_is_checked_is_what_is_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(with_two_contents()[name])
    with zipfile.ZipFile(path) as file:
        checked = pickle.loads(file.read("x/data.pkl"))
    try:
        assert load_checked(path) == checked
    except (EOFError, zipfile.BadZipFile):  # entries that together are larger than the file
        pass


def test_content_is_that_of_torch_load(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    content = {
        "state_dict": {"a": shared[:2], "b": shared.view(2, 3).t(), "p": torch.nn.Parameter(torch.ones(2).half())},
        "steps": [1, 2.5, True, None, "text", (1, (2,)), {3}],
        "empty": torch.zeros(0, 3, dtype=torch.int64),
    }
    for is_zip in (True, False):
        torch.save(content, tmp_path / "x.ckpt", _use_new_zipfile_serialization=is_zip)
        mine, theirs = load_checked(tmp_path / "x.ckpt"), torch.load(tmp_path / "x.ckpt", weights_only=True)
        assert mine["steps"] == theirs["steps"] and mine["empty"].shape == (0, 3)
        for name, value in theirs["state_dict"].items():
            own = mine["state_dict"][name]
            assert own.equal(value) and own.dtype == value.dtype and own.stride() == value.stride()
        assert mine["state_dict"]["a"].data_ptr() == mine["state_dict"]["b"].data_ptr()


def test_aliases_are_no_copies_without_end(tmp_path: Path) -> None:
    aliases = {f"encoder.k{number}": "t" for number in range(1000)}
    metadata = {"kind": "inversion-checkpoint", "opts": "{}", "aliases": json.dumps(aliases)}
    save_file({"t": torch.zeros(1000)}, tmp_path / "x.safetensors", metadata)
    assert "16 times as large" in refused(official_checkpoint.read_checkpoint, tmp_path / "x.safetensors")
