"""Training that starts from a file of NVIDIA's: G, D and the moving average of G, each from its own part."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from stylegan_inv import convert, train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_generator, to_nvidia
from stylegan_inv.generators.io.nvidia_snapshot import load_snapshot
from stylegan_inv.methods import StyleGAN2Training
from tests.cli import error_of
from tests.faults import small

CHANNELS = {4: 8, 8: 8, 16: 4}
#: Names of NVIDIA's modules.
MODULES = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util", "dnnlib.tflib", "dnnlib.tflib.network")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvidia")
    states = {}
    for seed, name in enumerate(("G", "G_ema", "D")):
        torch.manual_seed(seed)
        if name == "D":
            network: torch.nn.Module = Discriminator(16, channels=CHANNELS)
        else:
            network = Generator(16, z_dim=8, w_dim=8, mapping_layers=2, channels=CHANNELS)
        states[name] = to_nvidia(network.state_dict())
        torch.save(states[name], folder / f"{name}.pt")
    with pytest.MonkeyPatch.context() as patch:
        # The classes are named as NVIDIA's, in modules that exist while the files are written.
        for name in (
            "torch_utils",
            "torch_utils.persistence",
            "dnnlib",
            "dnnlib.util",
            "dnnlib.tflib",
            "dnnlib.tflib.network",
        ):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.delitem(sys.modules, "tests.generators.nvidia_objects", raising=False)
        from tests.generators.nvidia_objects import EasyDict, tree

        patch.setitem(sys.modules, "tests.generators.nvidia_objects", sys.modules["tests.generators.nvidia_objects"])
        attributes = {"synthesis.b4.conv1.activation": "lrelu", "mapping.fc0.bias_gain": 0.01}
        networks = {
            "G": tree(states["G"], "Generator", attributes),
            "D": tree(states["D"], "Discriminator", {"b4.mbstd.group_size": 2}),
            "G_ema": tree(states["G_ema"], "Generator", attributes),
        }
        content = {"training_set_kwargs": EasyDict(resolution=16), **networks, "augment_pipe": None}
        for name, missing in (("all", ()), ("no_d", ("D",)), ("average", ("G", "D"))):
            kept = {key: value for key, value in content.items() if key not in missing}
            (folder / f"{name}.pkl").write_bytes(pickle.dumps(kept, protocol=4))
    (folder / "photos").mkdir()
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)):
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return folder


def options(files: Path, name: str, run: Path) -> list[str]:
    return [
        "experiment=stylegan2_transfer", f"generator.source={files / name}.pkl", f"dataset.root={files / 'photos'}",
        "dataset.resolution=16", "dataset.batch_size=2", "dataset.num_workers=0", "dataset.val_size=2",
        "trainer.max_steps=2", "trainer.val_check_interval=2", "trainer.accelerator=cpu", "trainer.log_every_n_steps=1",
        "callbacks.panels=null", "callbacks.codes=null", "callbacks.worst=null", "callbacks.progress=null",
        "+trainer.enable_progress_bar=false", "logger=csv", "tune_allocator=false", "method.samples=1",
        "~metrics.fid50k_full", f"paths.run_dir='{run}'", f"paths.output_root='{run.parent}'",
    ]  # fmt: skip


def prepared(files: Path, name: str, run: Path, *more: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", [*options(files, name, run), *more])
    return cfg, train.prepare(cfg)


def test_each_network_starts_from_its_own_weights_and_learns(files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    cfg, job = prepared(files, "all", run)
    method = job.method
    assert isinstance(method, StyleGAN2Training)
    parts = {"G": method.generator, "G_ema": method.generator_ema, "D": method.discriminator}
    stored = {name: torch.load(files / f"{name}.pt", weights_only=True) for name in parts}
    for name, network in parts.items():
        assert all(torch.equal(value, stored[name][key]) for key, value in network.state_dict().items()), name
    assert method.discriminator.config["mbstd_group_size"] == 2
    assert not any(parameter.requires_grad for parameter in method.generator_ema.parameters())
    train.train(cfg, job)
    for name in ("G", "D"):
        parameters = dict(parts[name].named_parameters())
        same = [key for key, value in parameters.items() if torch.equal(value, stored[name][key])]
        assert not same, f"{name} did not learn"
    # From the run to a file for NVIDIA's loader: what the checkpoint has, and how to augment.
    target = run / "network-snapshot-000000.pkl"
    convert.main([str(run), str(target)])
    snapshot = load_snapshot(target)
    state = small.state(run)["state_dict"]
    for prefix, network in (
        ("generator", snapshot.generator), ("discriminator", snapshot.discriminator),
        ("generator_ema", snapshot.generator_ema),
    ):  # fmt: skip
        for key, value in network.state_dict().items():
            assert torch.equal(value, state[f"{prefix}.{key}"]), (prefix, key)
    from stylegan_inv.generators.io.weight_files import read_weights

    content = read_weights(target)[0]
    assert content["training_set_kwargs"] == {
        "class_name": "training.dataset.ImageFolderDataset", "path": str(files / "photos"), "use_labels": False,
        "max_size": None, "xflip": True, "resolution": 16,
    }  # fmt: skip
    assert torch.equal(content["augment_pipe"].state["p"], state["augment.p"])


def test_files_without_one_of_the_networks(files: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, more, message in (
        ("no_d", (), r"no_d.pkl: contains G, G_ema and no discriminator \(D\); .* discriminator=new"),
        ("average", ("discriminator=new",), r"contains G_ema and no trained weights \(G\); give generator.ema=true"),
        ("all", ("dataset.resolution=32",), "generator that is trained has 16 px; give dataset.resolution=16$"),
        ("all", ("dataset.batch_size=3",), "dataset.batch_size=3: .* multiple of 2"),
    ):
        with pytest.raises(UserError, match=message):
            prepared(files, name, run, *more)
    assert not run.exists()
    # The advice can be followed.
    _, job = prepared(files, "average", run, "generator.ema=true", "discriminator=new", "dataset.batch_size=4")
    first, second = (
        torch.cat([p.flatten() for p in g.parameters()]) for g in (job.method.generator, job.method.generator_ema)
    )
    assert torch.equal(first, second)


def test_what_cannot_become_a_snapshot(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "x.pkl"

    def error(*arguments: object) -> str:
        return error_of(monkeypatch, capsys, convert, *arguments)

    assert "no discriminator (D)" in error(files / "no_d.pkl", target)
    assert "no discriminator (D)" in error("synthfaces64", target)
    assert "leave --network" in error(files / "all.pkl", target, "--network", "generator")
    assert "expected a .pkl file" in error(files / "all.pkl", tmp_path / "x.pt", "--to", "snapshot")
    assert "method=stylegan2" in error(files, target)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(sys, "argv", ["convert", str(files / "all.pkl"), str(target), "--codes", "1"])
    convert.main()
    out = capsys.readouterr().out
    assert "tensors of the G_ema equal, bit by bit; 1 codes rendered" in out and "snapshot," in out
    assert load_generator(target).resolution == 16 and pickle.PROTO == target.read_bytes()[:1]
