"""NVIDIA's pickles are read exactly, and no file can make the reader execute anything."""

from __future__ import annotations

import codecs
import hashlib
import io
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator, to_nvidia
from stylegan_inv.generators.io import pickle_machine
from stylegan_inv.generators.io.nvidia_pickle import WHOLE_BATCH
from stylegan_inv.generators.io.weight_files import read_weights
from tests.forks import run_fork
from tests.generators.tensorflow_variables import to_tensorflow

SMALL = {4: 8, 8: 6, 16: 4}
EXECUTION = {"exec", "compile", "os.system", "os.posix_spawn", "subprocess.Popen", "pickle.find_class", "import"}
_seen: list[str] | None = None


def _listen(event: str, arguments: tuple) -> None:
    if _seen is not None and event in EXECUTION:
        _seen.append(f"{event} {arguments[:1]}")


@pytest.fixture(scope="session", autouse=True)
def _audit(tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("warm") / "x.pt"
    torch.save({}, path)
    # What the standard library imports at its first use is none of the file's doing.
    read_weights(path)
    for codec in ("cp437", "ascii", "latin1", "raw_unicode_escape", "unicode_escape"):
        codecs.lookup(codec)
    sys.addaudithook(_listen)  # cannot be taken back; outside of `read` it does nothing


def read(path: Path):
    """Runs `read_weights` under an audit hook that fails if anything is compiled, imported, unpickled or started."""
    global _seen
    _seen = []
    try:
        return read_weights(path)[0]
    finally:
        seen, _seen = _seen, None
        assert not seen, f"executed: {seen}"


def random_numbers(module):
    with torch.no_grad():
        for value in module.state_dict().values():
            value.add_(torch.randn_like(value) * 0.3)
    return module


@pytest.fixture(scope="module")
def networks() -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    generator = Generator(
        16, z_dim=5, w_dim=7, mapping_layers=2, channels=SMALL, conv_clamp=256, demod_eps_scaled=False
    )
    return random_numbers(generator), random_numbers(Discriminator(16, channels=SMALL, mbstd_group_size=2))


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nvidia")
    generator, discriminator = networks
    torch.save(to_nvidia(generator.state_dict()), folder / "generator.pt")
    torch.save(to_nvidia(discriminator.state_dict()), folder / "discriminator.pt")
    torch.save(to_tensorflow(generator, discriminator), folder / "tensorflow.pt")
    script = Path(__file__).with_name("make_nvidia_files.py")
    done = run_fork(str(script), str(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def same(a, b) -> bool:
    own, other = a.state_dict(), b.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)


def test_pytorch_pickle(networks, files):
    generator, discriminator = networks
    content = read(files / "network.pkl")
    source = f"open({str(files / 'canary')!r}, 'w').write('executed')"
    assert content["G_ema"].source_sha256 == hashlib.sha256(source.encode()).hexdigest()
    assert content["training_set_kwargs"] == {"resolution": 16} and content["augment_pipe"] is None
    assert "scratch" not in content["G_ema"].state
    loaded = load_generator(files / "network.pkl")
    assert same(loaded, generator) and loaded.config == generator.config
    assert same(load_discriminator(files / "network.pkl"), discriminator)
    assert load_discriminator(files / "network.pkl").config == discriminator.config
    assert not any(p.any() for p in load_generator(files / "network.pkl", ema=False).parameters())
    assert not (files / "canary").exists()


def test_tensorflow_pickle(networks, files):
    generator, discriminator = networks
    loaded = load_generator(files / "tensorflow.pkl")
    assert loaded.config == {**generator.config, "conv_clamp": None, "demod_eps_scaled": True}
    for key, value in loaded.state_dict().items():
        # The bias of the styles is stored without its 1, which costs a rounding.
        torch.testing.assert_close(value, generator.state_dict()[key], rtol=0, atol=3e-7)
    d = load_discriminator(files / "tensorflow.pkl")
    assert same(d, discriminator) and d.config["mbstd_group_size"] == 4  # TensorFlow's default
    assert not (files / "canary").exists()


def test_pickled_module_in_a_torch_file(networks, files):
    """PTI saves its tuned generators in this form."""
    assert same(load_generator(files / "pti.pt"), networks[0])


def test_hints_beyond_shapes(files):
    assert load_discriminator(files / "whole_batch.pkl").config["mbstd_group_size"] == WHOLE_BATCH
    with pytest.raises(UserError, match="has synthesis.b4.conv1.activation 'relu'; only StyleGAN2's 'lrelu'"):
        load_generator(files / "relu.pkl")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("relu", "b4.conv1.activation 'relu'"),
        ("late", "b16.conv0.activation 'relu'"),
        ("orig", "b8.architecture 'orig'; only StyleGAN2's 'skip'"),
        ("quiet", "b8.conv1.use_noise 'False'; only StyleGAN2's True"),
        ("clamps", r"different conv_clamp \(1.0, 256\): not supported"),
        ("unnormalised", "normalize_latents 'False'; only StyleGAN2's True"),
    ],
)
def test_other_architectures_are_refused_without_wrong_advice(name, message, files):
    """Their state dicts would load as those of StyleGAN2 and give other images."""
    with pytest.raises(UserError, match=message) as info:
        load_generator(files / f"{name}.pkl")
    assert "torch.save" not in str(info.value) and "supported" in str(info.value)


# ---------------------------------------------------------------------------------------------------------------------
# Attacks


class Call:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def torch_bytes(content, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def attacks(canary: Path) -> Iterator[tuple[str, bytes, str]]:
    touch = f"touch {canary}"
    calls = {
        "os.system": Call(os.system, touch),
        "builtins.eval": Call(eval, f"open({str(canary)!r}, 'w')"),
        "builtins.exec": Call(exec, f"open({str(canary)!r}, 'w')"),
        "subprocess.Popen": Call(subprocess.Popen, ["touch", str(canary)]),
        "builtins.getattr": Call(getattr, "x", "upper"),
        "torch.load": Call(torch.load, str(canary)),
    }
    for name, call in calls.items():
        shown = name.replace("os.system", "posix.system").replace("torch.load", "torch.serialization.load")
        message = f"names {shown}, which unpickling could execute"
        yield f"{name} in a pickle", pickle.dumps({"G_ema": call}, protocol=4), message
        yield f"{name} in protocol 0", pickle.dumps({"G_ema": call}, protocol=2), "which unpickling could execute"
        yield f"{name} in a zip", torch_bytes({"g_ema": call}), "which unpickling could execute"
        yield f"{name} in the old format", torch_bytes({"g_ema": call}, legacy=True), "which unpickling could execute"
        inner = torch_bytes(call, legacy=True)
        nested = pickle.dumps({"G_ema": Call(torch.storage._load_from_bytes, inner)}, protocol=4)
        yield f"{name} in a storage", nested, "which unpickling could execute"
    inner = torch_bytes({"a": torch.zeros(2)}, legacy=True)
    nested = pickle.dumps(Call(torch.storage._load_from_bytes, inner), protocol=4)
    yield "a state dict in a storage", nested, "torch._utils._rebuild_tensor_v2, which"
    yield (
        "a list in a storage",
        pickle.dumps(Call(torch.storage._load_from_bytes, torch_bytes([1], legacy=True)), protocol=4),
        "contain something else",
    )
    storage = b"\x80\x04ctorch.storage\n_load_from_bytes\nC"
    yield "storage of text", b"\x80\x04ctorch.storage\n_load_from_bytes\n\x8c\x01x\x85R.", "storage that is not bytes"
    yield "storage cut short", storage + b"\x01x\x85R.", "damaged"
    # BUILD sets attributes in Python's unpickler: of functions, of classes, of anything.
    rebuild = b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\n"
    yield "attributes of a function", rebuild + b"}\x8c\x0c__code__here\x8c\x01xsb.", "sets attributes of a Global"
    yield "attributes of a list", b"\x80\x04]}\x8c\x09__class__\x8c\x01xsb.", "sets attributes of a list"
    yield "call of text", b"\x80\x04\x8c\x04exec\x8c\x01x\x85R.", "calls a str"
    yield "call of a name that may not be called", b"\x80\x04ctorch\nFloatStorage\n)R.", "calls torch.FloatStorage"
    yield "a name of numbers", b"\x80\x04K\x01K\x02\x93.", "a name that is not text"
    yield "a dotted name", b"\x80\x04\x8c\x08builtins\x8c\x10set.__init__.__x\x93.", "names builtins.set.__init__.__x"
    yield "INST", b"\x80\x02(ios\nsystem\n.", "the instruction INST"
    yield "OBJ", b"\x80\x02(cbuiltins\nset\no.", "the instruction OBJ"
    yield "EXT1", b"\x80\x02\x82\x01.", "the instruction EXT1"
    yield "PERSID", b"\x80\x02Px\n.", "the instruction PERSID"
    yield "BINPERSID", b"\x80\x02K\x01Q.", "the instruction BINPERSID"
    yield "NEWOBJ_EX", b"\x80\x04cbuiltins\nset\n)}\x92.", "the instruction NEWOBJ_EX"
    objects = pickle.dumps(np.array([Call(os.system, touch)], dtype=object), protocol=4)
    yield "numpy objects", objects, "numpy array that does not contain numbers|posix.system"
    yield "numpy objects, empty", pickle.dumps(np.array([None], dtype=object)), "does not contain numbers"
    structure = np.zeros(2, dtype=[("a", "f4")])
    yield "numpy structures", pickle.dumps({"a": structure}, protocol=4), "does not contain numbers"
    array = pickle.dumps({"a": np.zeros(4, dtype=np.float32)}, protocol=4)
    yield "numpy array with less data", array.replace(b"K\x04\x85", b"K\x05\x85"), "damaged"
    yield (
        "encode",
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x04\x00\x00\x00utf8\x86R.",
        "encodes something other",
    )
    # Impossible lengths and numbers.
    yield "bytes of 2^60", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "damaged"
    yield "text of 2^60", b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"x.", "damaged"
    yield "frame of 2^60", b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].", "contains a list"
    yield "memo at 2^32", b"\x80\x02}r\xff\xff\xff\xff.", "contains 0 unknown|expected a StyleGAN2"
    yield "memo bomb", b"\x80\x04}" + b"\x94" * 1001 + b".", "more than 1,000 objects"
    yield "a long program", b"\x80\x04}" + b"N0" * 30_001 + b".", "more than 60,000 instructions"
    deep = 25_000
    yield "lists in lists", b"\x80\x04" + b"]" * deep + b"a" * (deep - 1) + b".", "contains a list"
    yield "tuples as key", b"\x80\x04})" + b"\x85" * deep + b"Ns.", "has a tuple as a key"
    yield "tuples in a set", b"\x80\x04\x8f()" + b"\x85" * deep + b"\x90.", "has a tuple as a key"
    yield "tuples in a frozenset", b"\x80\x04()" + b"\x85" * deep + b"\x91.", "has a tuple as a key"
    yield (
        "tuples in a called set",
        b"\x80\x04cbuiltins\nset\n])" + b"\x85" * deep + b"a\x85R.",
        "has a tuple as a key",
    )
    persistent = b"\x80\x04ctorch_utils.persistence\n_reconstruct_persistent_obj\n"
    yield "an object that is no class", persistent + b"}\x85R.", "not a class"
    yield "an object without a dict", persistent + b"K\x01\x85R.", "not a class"


CANARY = Path(os.environ.get("TMPDIR", "/tmp")) / f"stylegan_inv_canary_{os.getpid()}"
ATTACKS = list(attacks(CANARY))


@pytest.mark.parametrize(("content", "message"), [a[1:] for a in ATTACKS], ids=[a[0] for a in ATTACKS])
def test_nothing_is_executed(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr(pickle_machine, "MAX_MEMO", 1000)
    monkeypatch.setattr(pickle_machine, "MAX_STEPS", 60_000)
    path = tmp_path / "network.pkl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as info:
        read(path)
        load_generator(path)
    assert "\n" not in str(info.value) and str(path) in str(info.value) and len(str(info.value)) < 500
    assert not CANARY.exists()


def test_pythons_unpickler_executes_the_attacks(tmp_path):
    """The attacks are real: with Python's own unpickler, the canary file appears."""
    canary = tmp_path / "canary"
    contents = {name: content for name, content, _ in attacks(canary)}
    for name in ("os.system in a pickle", "builtins.eval in protocol 0", "os.system in a storage"):
        pickle.loads(contents[name])
        canary.unlink()


def tensor_pickle(offset, size, stride, count=4) -> bytes:
    storage = torch.zeros(count).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    arguments = (typed, offset, size, stride, False, None)
    return pickle.dumps({"a": Call(torch._utils._rebuild_tensor_v2, *arguments)}, protocol=4)


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (5,), (1,)),
        (1, (4,), (1,)),
        (4, (1,), (1,)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (2,), (1 << 62,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40,), (0,)),  # one number shown a million million times
        (0.0, (2,), (1,)),
        (0, (True,), (1,)),
    ],
)
def test_tensors_stay_inside_their_storage(offset, size, stride, tmp_path):
    path = tmp_path / "g.pkl"
    path.write_bytes(tensor_pickle(offset, size, stride))
    with pytest.raises(UserError, match="damaged|more than 16 times"):
        read(path)
    path.write_bytes(tensor_pickle(1, (3,), (1,)))
    assert read(path)["a"].shape == (3,)


def test_modules_that_contain_each_other(files):
    with pytest.raises(UserError, match="has too many or too deeply nested networks"):
        read(files / "twice.pkl")


def test_damaged_zip_files(tmp_path):
    path = tmp_path / "g.pt"
    good = torch_bytes({"a": torch.arange(100.0)})

    def rewrite(change):
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(buffer, "w") as new:
            for info in old.infolist():
                change(new, info.filename, old.read(info))
        path.write_bytes(buffer.getvalue())

    rewrite(lambda new, name, data: new.writestr(name, data))
    assert torch.equal(read(path)["a"], torch.arange(100.0))
    rewrite(lambda new, name, data: new.writestr(name, data[:-4] if name.endswith("data/0") else data))
    with pytest.raises(UserError, match="damaged"):
        read(path)
    rewrite(lambda new, name, data: new.writestr(name, bytes(10**6), compress_type=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="compressed"):
        read(path)
    rewrite(lambda new, name, data: new.writestr(name, b"big" if name.endswith("byteorder") else data))
    with pytest.raises(UserError, match="big-endian"):
        read(path)
    rewrite(lambda new, name, data: new.writestr(name.replace("data.pkl", "other"), data))
    with pytest.raises(UserError, match="was not written by torch.save"):
        read(path)
    path.write_bytes(good[:200] + b"\x00\xff" + good[202:])
    with pytest.raises(UserError):
        load_generator(path)


@pytest.fixture(scope="module")
def instructions(files) -> dict[str, list[int]]:
    """Positions of the instructions; most other bytes are weights, whose values are arbitrary."""
    return {
        name: [position or 0 for _, _, position in pickletools.genops((files / name).read_bytes())]
        for name in ("network.pkl", "tensorflow.pkl")
    }


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_of_a_good_file(files, instructions, tmp_path, data):
    """Arbitrary bytes give a mapping or a one-line error, no other exception, and execute nothing."""
    name = data.draw(st.sampled_from(["network.pkl", "tensorflow.pkl", "pti.pt"]))
    content = bytearray((files / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        anywhere = st.integers(0, len(content) - 1)
        position = data.draw(st.sampled_from(instructions[name]) if name in instructions else anywhere)
        position = min(position + data.draw(st.integers(0, 3)), len(content) - 1)
        content[position] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path / "mutated"
    path.write_bytes(content)
    try:
        assert isinstance(read(path), dict)
        load_generator(path)
    except UserError as error:
        assert "\n" not in str(error)
    assert not (files / "canary").exists()
