"""Snapshots for NVIDIA's loaders: what is in them, and what the loaders of both checkouts make of them.

`test_loaded_by_nvidias_code` runs where STYLEGAN_INV_NVIDIA names a folder with clones of stylegan2-ada-pytorch and
stylegan3; elsewhere it is skipped.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator
from stylegan_inv.generators.io.nvidia_snapshot import SOURCE, Snapshot, load_snapshot, save_snapshot
from tests.generators.test_nvidia_pickle import random_numbers, read, same

CHANNELS = {4: 16, 8: 16, 16: 8}
CLONES = Path(os.environ.get("STYLEGAN_INV_NVIDIA", "/nowhere"))
CHECKOUTS = [CLONES / name for name in ("stylegan2-ada-pytorch", "stylegan3")]


def snapshot(c_dim: int = 0) -> Snapshot:
    torch.manual_seed(0)

    def generator() -> Generator:
        return random_numbers(
            Generator(
                16, z_dim=8, w_dim=12, mapping_layers=2, channels=CHANNELS, c_dim=c_dim, conv_clamp=256,
                mapping_lr_multiplier=0.05, demod_eps_scaled=False,
            )
        )  # fmt: skip

    discriminator = Discriminator(
        16, channels=CHANNELS, c_dim=c_dim, mbstd_group_size=2, conv_clamp=128, mapping_layers=3
    )
    augment = {"p": 0.25, "xflip": 1.0, "hue": 0.5}
    data = {"class_name": "training.dataset.ImageFolderDataset", "path": "images", "resolution": 16}
    return Snapshot(generator(), random_numbers(discriminator), generator(), augment, data)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, Path]:
    path = tmp_path_factory.mktemp("snapshot") / "network-snapshot-000200.pkl"
    whole = snapshot()
    save_snapshot(whole, path)
    return whole, path


def test_read_back_without_executing_anything(stored: tuple[Snapshot, Path]) -> None:
    whole, path = stored
    content = read(path)
    assert list(content) == ["training_set_kwargs", "G", "D", "G_ema", "augment_pipe"]
    assert content["training_set_kwargs"] == whole.training_set
    assert float(content["augment_pipe"].state["p"]) == 0.25
    again = load_snapshot(path)
    for own, other in ((whole.generator, again.generator), (whole.generator_ema, again.generator_ema)):
        assert same(own, other) and own.config == other.config
    assert same(whole.discriminator, again.discriminator)
    assert again.discriminator.config == {**whole.discriminator.config, "mapping_layers": 8}  # unused without classes
    assert same(load_generator(path), whole.generator_ema) and same(load_generator(path, ema=False), whole.generator)
    assert same(load_discriminator(path), whole.discriminator)


def test_what_a_loader_executes(stored: tuple[Snapshot, Path]) -> None:
    """The file calls NVIDIA's persistence and PyTorch's own functions for tensors, and holds no text of NVIDIA's."""
    names = {
        str(argument) for opcode, argument, _ in pickletools.genops(stored[1].read_bytes()) if "GLOBAL" in opcode.name
    }
    assert names == {
        "torch_utils.persistence _reconstruct_persistent_obj",
        "torch._utils _rebuild_tensor_v2",
        "torch.storage _load_from_bytes",
        "collections OrderedDict",
    }
    assert "NVIDIA" not in SOURCE and stored[1].read_bytes().count(SOURCE.encode()) == 4
    compile(SOURCE, "source", "exec")


def test_pythons_unpickler_gets_the_same_parts(stored: tuple[Snapshot, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own unpickler, with a stand-in for NVIDIA's function that executes nothing."""
    from types import ModuleType

    module = ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = lambda meta: meta  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    content = pickle.loads(stored[1].read_bytes())
    assert content["training_set_kwargs"] == stored[0].training_set
    metas = {name: content[name] for name in ("G", "D", "G_ema", "augment_pipe")}
    assert {(meta["type"], meta["version"], meta["module_src"]) for meta in metas.values()} == {("class", 6, SOURCE)}
    kinds = ["Generator", "Discriminator", "Generator", "AugmentPipe"]
    assert [meta["class_name"] for meta in metas.values()] == kinds
    assert metas["G"]["state"]["arguments"] == {
        "c_dim": 0, "img_resolution": 16, "img_channels": 3, "z_dim": 8, "w_dim": 12,
        "mapping_kwargs": {"num_layers": 2, "lr_multiplier": 0.05},
        "synthesis_kwargs": {"channel_base": 128, "channel_max": 16, "num_fp16_res": 0, "conv_clamp": 256},
    }  # fmt: skip
    own, tensors = stored[0].generator.state_dict(), metas["G"]["state"]["tensors"]
    assert all(torch.equal(tensors[key], value) for key, value in own.items())
    assert {key.rpartition(".")[2] for key in tensors.keys() - own.keys()} == {"resample_filter"}
    assert metas["augment_pipe"]["state"]["arguments"] == {"xflip": 1.0, "hue": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": {4: 8, 8: 6, 16: 4}}, "has the channels .* give --to nvidia"),
        ({"style": "adain"}, "no networks of the first StyleGAN"),
        ({"progressive": True}, "none that grow"),
    ],
)
def test_networks_that_nvidia_has_not(options: dict, message: str, tmp_path: Path) -> None:
    generator = Generator(16, z_dim=4, w_dim=4, mapping_layers=1, **{"channels": CHANNELS, **options})
    with pytest.raises(UserError, match=message):
        save_snapshot(Snapshot(generator, Discriminator(16, channels=CHANNELS), generator), tmp_path / "x.pkl")
    assert not (tmp_path / "x.pkl").exists()


@pytest.mark.long
@pytest.mark.parametrize("c_dim", [0, 3])
@pytest.mark.parametrize("checkout", CHECKOUTS, ids=lambda path: path.name)
def test_loaded_by_nvidias_code(checkout: Path, c_dim: int, tmp_path: Path) -> None:
    if not (checkout / "legacy.py").is_file():
        pytest.skip(f"no clone {checkout}; STYLEGAN_INV_NVIDIA=<folder of clones>")
    whole, path, output = snapshot(c_dim), tmp_path / "snapshot.pkl", tmp_path / "output.pt"
    save_snapshot(whole, path)
    script = Path(__file__).with_name("load_in_nvidia_checkout.py")
    environment = dict(os.environ, PYTHONPATH="", CUDA_VISIBLE_DEVICES="")
    subprocess.run([sys.executable, str(script), str(checkout), str(path), str(output)], check=True, env=environment)
    loaded = torch.load(output, weights_only=True)
    assert loaded["training_set"] == whole.training_set and loaded["float16"] is True
    assert (float(loaded["p"]), float(loaded["hue"])) == (0.25, 0.5)
    z, images = loaded["z"], loaded["images"]
    c = torch.eye(c_dim)[:1].expand(len(z), -1) if c_dim else None
    # The second file is written by NVIDIA's code, with the source text of the checkout.
    second = load_snapshot(output.with_suffix(".pkl"))
    with torch.no_grad():
        for network, name in ((whole.generator, "G"), (whole.generator_ema, "G_ema"), (whole.generator_ema, "copy")):
            torch.testing.assert_close(loaded[name], network(z, c=c), rtol=0, atol=3e-5)  # images reach 10
        torch.testing.assert_close(loaded["D"], whole.discriminator(images, c), rtol=0, atol=1e-5)
        assert same(second.generator, whole.generator) and same(second.discriminator, whole.discriminator)
        assert second.generator_ema.config == whole.generator_ema.config
        assert second.discriminator.config["mbstd_group_size"] == 2
