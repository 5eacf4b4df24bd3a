"""Conditional and grey generators through the commands: train, invert, evaluate, edit; and what does not fit."""

from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_inv import train
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.images.image_files import read_image, to_grey
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.loading import load_inverter
from stylegan_inv.prepare.__main__ import main as prepare_images
from tests.cli import call, error_of
from tests.labelled import CLASSES, NEW, generator_file, labelled_images, training

PROJECTOR = ("method=projector", "method.steps=1", "method.w_avg_samples=100", "method.initial_noise_factor=0")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator_file(tmp_path_factory.mktemp("data") / "conditional.safetensors")


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator_file(tmp_path_factory.mktemp("data") / "grey.safetensors", c_dim=0, img_channels=1)


def source(file: Path) -> tuple[str, str]:
    return "generator=file", f"generator.source='{file}'"


def average_of(file: Path, label: int) -> torch.Tensor:
    return load_generator(file, class_label=label).w_avg


# -- training of methods ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["psp", "restyle", "e4e", "restyle_e4e", "projector", "pti"])
@pytest.mark.parametrize("choice", ["1", "dataset"])
def test_methods_are_trained_and_validated_around_a_conditional_generator(
    method: str, choice: str, images: Path, conditional: Path, tmp_path: Path
) -> None:
    cfg = training(method, tmp_path / "run", images, *source(conditional), f"class={choice}")
    train.train(cfg, train.prepare(cfg))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert np.isfinite(metrics["val/mse"])
    restored = load_inverter(tmp_path / "run")  # of the same class
    assert str(restored.generator.mapping.classes) == choice


def test_the_class_of_each_image_reaches_the_encoder_and_the_panels(
    images: Path, conditional: Path, tmp_path: Path
) -> None:
    cfg = training("psp", tmp_path / "run", images, *source(conditional), "class=dataset")
    job = train.prepare(cfg)
    batch = job.data.panel_batch(3)
    assert batch["class"].tolist() == [index % CLASSES for index in (6, 7, 8)]  # the last three
    for parameter in job.method.encoder.parameters():
        parameter.data.zero_()
    with job.method.with_classes(batch["class"]):
        w = job.method.invert(batch["image"]).w
    for row, label in enumerate(batch["class"].tolist()):
        torch.testing.assert_close(w[row], average_of(conditional, label).expand_as(w[row]))


def test_the_default_class_is_printed_once(
    images: Path, conditional: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    job = train.prepare(training("psp", tmp_path / "run", images, *source(conditional)))
    assert [record.message for record in caplog.records if "class=none, the mean over 3 classes" in record.message]
    assert torch.equal(job.method.generator.w_avg, job.method.generator.mapping.w_avg)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("class=3",), "class=3: expected a whole number from 0 to 2"),
        (("class=dog",), "class=dog: expected a whole number from 0 to 2; or none"),
        (("generator=synthfaces64", "generator.source=synthfaces64", "class=1"), "class=1: the generator is uncond"),
        (("dataset=synthfaces", "~dataset.root", "~dataset.horizontal_flip", "class=dataset"), "no class labels"),
    ],
)
def test_wrong_classes_are_refused_before_the_run_folder_exists(
    more: tuple[str, ...], message: str, images: Path, conditional: Path, tmp_path: Path
) -> None:
    if more[0] == "dataset=synthfaces":
        cfg = training("psp", tmp_path / "run", images, *source(conditional), "class=dataset")
        cfg.dataset = {
            "_target_": "stylegan_inv.data.SynthFacesDataModule", "resolution": 32, "val_size": 2, "train_size": 4,
            "batch_size": 2, "domain": "synthfaces",
        }  # fmt: skip
    else:
        cfg = training("psp", tmp_path / "run", images, *source(conditional), *more)
    with pytest.raises(UserError, match=message):
        train.prepare(cfg)
    assert not (tmp_path / "run").exists()


# -- invert, edit, evaluate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["2", "dataset", "none"])
def test_invert_starts_at_the_average_of_the_class(
    choice: str, images: Path, conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = (*PROJECTOR, "method.lr=1.0e-12", "batch_size=4", f"output={tmp_path}/out")
    call(monkeypatch, invert, *common, *source(conditional), f"input={images}", f"class={choice}")
    latents = read_latents(tmp_path / "out")
    assert latents.metadata["class"] == choice
    for name, w in zip(latents.names, latents.w, strict=True):
        label = {"2": 2, "dataset": int(Path(name).stem) % CLASSES}.get(choice)
        expected = load_generator(conditional).w_avg if label is None else average_of(conditional, label)
        torch.testing.assert_close(w, expected.expand_as(w))
    # The codes are edited towards the average of the class that they were inverted with.
    common = (f"input={tmp_path}/out", *source(conditional), "edit=truncate", "edit.psi=[0.0]", f"output={tmp_path}/e")
    call(monkeypatch, edit, *common)
    assert len(list((tmp_path / "e" / "images").rglob("*.png"))) == 9


def test_random_samples_of_a_class(conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def image(name: str, *arguments: str) -> torch.Tensor:
        common = ("edit=truncate", "edit.psi=[1.0]", "samples=1", f"output={tmp_path}/{name}")
        call(monkeypatch, edit, *common, *source(conditional), *arguments)
        (file,) = (tmp_path / name / "images").glob("*.png")
        return read_image(file)

    generator = load_generator(conditional, class_label=1)
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))

    def expected(w: torch.Tensor) -> torch.Tensor:
        return generator.synthesis(w.expand(1, generator.num_ws, -1))[0].clamp(-1, 1)

    tolerance = {"rtol": 0, "atol": 1.01 / 127.5}
    w = generator.mapping.w(z, torch.eye(CLASSES)[[1]])[:, None]
    torch.testing.assert_close(image("a", "class=1"), expected(w), **tolerance)
    torch.testing.assert_close(image("b", "class=1", "psi=0"), expected(generator.w_avg), **tolerance)
    torch.testing.assert_close(
        image("c", "class=1", "psi=0", "truncate_to=global"), expected(generator.mapping.w_avg), **tolerance
    )


def test_bad_classes_of_commands(
    images: Path, conditional: Path, grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)

    def error(module: object, *arguments: str) -> str:
        line = error_of(monkeypatch, capsys, module, *arguments)  # type: ignore[arg-type]
        assert not list(tmp_path.iterdir()), "nothing is written"
        return line

    image = images / "0" / "0.png"
    common = (*PROJECTOR, *source(conditional), "output=out")
    assert "class=7: expected" in error(invert, *common, f"input={image}", "class=7")
    assert "class=1: the generator is uncond" in error(invert, *PROJECTOR, *source(grey), f"input={image}", "class=1")
    assert "no class labels" in error(invert, *common, "input=synthfaces:0", "class=dataset")
    assert "random samples belong to no image" in error(edit, *source(conditional), "class=dataset")
    assert "class=9: expected" in error(edit, *source(conditional), "class=9")
    assert "edit.space=z: the samples are of all classes" in error(
        edit, *source(conditional), "edit=morph", "edit.space=z", "samples=2"
    )
    assert "truncate_to=all: expected" in error(edit, *source(conditional), "truncate_to=all")


def test_evaluation_with_the_class_of_each_image(
    images: Path, conditional: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = training("psp", tmp_path / "run", images, *source(conditional), "class=dataset", "dataset.val_size=4")
    train.train(cfg, train.prepare(cfg))
    method = load_inverter(tmp_path / "run")
    found = {}
    for choice in ("dataset", "1"):
        common = (f"run={tmp_path}/run", "speed.seconds=0", "metrics=image", "quantise=false", "steps=false")
        call(monkeypatch, evaluate, *common, f"class={choice}", f"output={tmp_path}/{choice}")
        with open(tmp_path / choice / "per_image.csv") as file:
            found[choice] = [float(row["psnr"]) for row in csv.DictReader(file)]
    data = FolderDataModule(root=images, resolution=16, val_size=4)
    batch = data.panel_batch(4)
    for choice, labels in {"dataset": [2, 0, 1, 2], "1": [1] * 4}.items():
        w = method.encoder(batch["image"]) + torch.stack([average_of(conditional, k) for k in labels])[:, None]
        error = (method.generator.synthesis(w).clamp(-1, 1) - batch["image"]).square().mean((1, 2, 3))
        assert found[choice] == pytest.approx((10 * (4 / error).log10()).tolist(), rel=1e-3)
    line = error_of(
        monkeypatch, capsys, evaluate, f"run={tmp_path}/run", "class=4", "speed.seconds=0", f"output={tmp_path}/x"
    )
    assert "class=4: expected" in line and not (tmp_path / "x").exists()


# -- training of generators ------------------------------------------------------------------------------------------


def test_a_conditional_generator_is_trained_on_labelled_images(images: Path, tmp_path: Path) -> None:
    cfg = training("stylegan2", tmp_path / "run", images, *NEW, "generator.c_dim=3", "trainer.max_steps=4")
    job = train.prepare(cfg)
    before = {name: p.detach().clone() for name, p in job.method.named_parameters()}
    train.train(cfg, job)
    for name in ("generator.mapping.embed.weight", "discriminator.mapping.embed.weight"):
        assert not torch.equal(before[name], dict(job.method.named_parameters())[name])
    trained = load_generator(tmp_path / "run" / "generator.safetensors", class_label=2)
    assert trained.c_dim == 3 and torch.isfinite(trained(torch.randn(2, 8))).all()


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, (), "has no class labels, expected dataset.json with a class of 0 to 2"),
        ({"labels": None}, (), "has no class labels"),
        (lambda n: [[n, 0.5]], (), "expected a whole number or one-hot"),
        (lambda n: [[n, [1, 1, 0]]], (), "one-hot"),
        (lambda n: [[n, 0], ["more.png", 1]], (), "names 1 images that do not exist"),
        ("partial", (), "no class for 8 of 9 images"),
        (lambda n: [[n, 5]], (), "has classes 0 to 5, expected 0 to 2, .* generator.c_dim=6"),
        (lambda n: [[n, 1]], (), "has classes 0 to 1, expected 0 to 2, .* generator.c_dim=2"),
        (lambda n: [[n, 2]], ("class=1",), "class=1: a generator is trained with the classes of all images"),
        (lambda n: [[n, 2]], ("method.discriminator.c_dim=0",), "method.discriminator.c_dim=0: expected 3"),
    ],
)
def test_labels_that_do_not_fit_the_training_of_a_generator(
    content: object, more: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    images = labelled_images(tmp_path / "images")
    names = [name for name, _ in json.loads((images / "dataset.json").read_text())["labels"]]
    if content is None:
        (images / "dataset.json").unlink()
    elif content == "partial":
        (images / "dataset.json").write_text(json.dumps({"labels": [[names[0], 1]]}))
    elif callable(content):
        rows = {row[0]: row[1] for name in names for row in content(name)}
        (images / "dataset.json").write_text(json.dumps({"labels": list(rows.items())}))
    else:
        (images / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as found:
        train.prepare(training("stylegan2", tmp_path / "run", images, *NEW, "generator.c_dim=3", *more))
    assert "\n" not in str(found.value) and not (tmp_path / "run").exists()


# -- a dataset.json that nothing needs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b'{"labels": [["0/0.png", [0.1, 0.7]]]}',  # continuous and partial
        b'{"labels": [["0/0.png", [1, 1]], ["x", 1]], "more": 1}',  # multi-hot and unknown names
        b'{"labels": [["0/0.png", 1],]}',  # a trailing comma
        b"\xff\x00",
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_labels_that_nothing_needs_stop_nothing(
    content: bytes, packed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images: Path = labelled_images(tmp_path / "images")
    (images / "dataset.json").write_bytes(content)
    if packed:
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for path in sorted(p for p in images.rglob("*") if p.is_file()):
                archive.write(path, path.relative_to(images))
        images = tmp_path / "images.zip"
    data = FolderDataModule(root=images, resolution=16, batch_size=2, val_size=3)
    data.setup("fit")
    assert data.panel_images(3).shape == (3, 3, 16, 16)
    prepare_images(["verify", str(images), "--workers", "0", "--report", str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["images"] == 9 and report["classes"] is None and "dataset.json" in report["classes_error"]
    capsys.readouterr()
    for target in ("packed.zip", "packed.lmdb"):
        prepare_images(["pack", str(images), str(tmp_path / target), "--workers", "0"])
        said = capsys.readouterr().out
        assert ("packed without classes" in said) == (target == "packed.zip")
        assert len(open_source(tmp_path / target)) == 9 and open_source(tmp_path / target).classes is None


def test_a_labelled_folder_is_packed_with_its_classes(images: Path, tmp_path: Path) -> None:
    prepare_images(["pack", str(images), str(tmp_path / "a.zip"), "--workers", "0"])
    classes = open_source(tmp_path / "a.zip").classes
    assert classes is not None and classes.tolist() == [index % CLASSES for index in range(9)]


# -- grey generators -------------------------------------------------------------------------------------------------


def test_grey_images_are_unchanged_and_colours_become_luma() -> None:
    colours = torch.rand(2, 3, 4, 4) * 2 - 1
    grey = colours[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(to_grey(grey), grey)
    levels = ((colours + 1) * 127.5).round().byte()
    pillow = [np.asarray(Image.fromarray(i.permute(1, 2, 0).numpy()).convert("L")) for i in levels]
    found = to_grey(levels.float())[:, 0]
    assert (found - torch.from_numpy(np.stack(pillow))).abs().max() <= 0.51


@pytest.mark.parametrize("method", ["psp", "restyle", "pti"])
def test_grey_generators_are_inverted_end_to_end(
    method: str, images: Path, grey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = training(method, tmp_path / "run", images, *source(grey))
    job = train.prepare(cfg)
    batch = job.data.panel_batch(3)
    assert torch.equal(batch["image"], to_grey(batch["image"]))
    train.train(cfg, job)
    call(monkeypatch, invert, f"run={tmp_path}/run", f"input={images}/0", f"output={tmp_path}/out")
    files = sorted((tmp_path / "out" / "reconstructions").glob("*.png"))
    assert len(files) == 4 and (tmp_path / "out" / "contact_sheet.png").is_file()
    for file in files:
        pixels = np.asarray(Image.open(file).convert("RGB")).astype(int)
        assert (pixels.max(2) - pixels.min(2)).max() <= (1 if method == "pti" else 0)
    call(monkeypatch, edit, f"input={tmp_path}/out", *source(grey), "edit=truncate", f"output={tmp_path}/edited")
    call(
        monkeypatch, evaluate, f"run={tmp_path}/run", "speed.seconds=0", "metrics=image", f"output={tmp_path}/evaluated"
    )
    assert "grey" in json.loads((tmp_path / "evaluated" / "metrics.json").read_text())["protocol"]["generator"]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_grey_generator_is_trained(mode: str, tmp_path: Path) -> None:
    images = labelled_images(tmp_path / "images", mode=mode)
    cfg = training("stylegan2", tmp_path / "run", images, *NEW, "generator.img_channels=1")  # with augmentation
    job = train.prepare(cfg)
    train.train(cfg, job)
    assert job.method.panel_columns()["psi 1"].shape[1] == 1
    raw = load_generator(tmp_path / "run" / "generator.safetensors")
    assert raw.img_channels == 1
    assert "val/frechet_embedded" in json.loads((tmp_path / "run" / "metrics.json").read_text())
    rgb = load_generator(tmp_path / "run" / "generator.safetensors", as_rgb=True)
    image = rgb(torch.randn(2, 8))
    assert torch.equal(image[:, 0], image[:, 2]) and rgb.grey


@pytest.mark.parametrize("channels", [2, 4, 96])
def test_other_channels_are_refused_in_prepare(
    channels: int, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = generator_file(tmp_path / "g.safetensors", c_dim=0, img_channels=channels)
    monkeypatch.chdir(tmp_path)
    words = f"{channels} channels"
    for method, more in (("psp", source(file)), ("stylegan2", (*NEW, f"generator.img_channels={channels}"))):
        with pytest.raises(UserError, match=words):
            train.prepare(training(method, tmp_path / "run", images, *more))
    image = images / "0" / "0.png"
    assert words in error_of(monkeypatch, capsys, invert, *PROJECTOR, *source(file), f"input={image}", "output=out")
    assert words in error_of(monkeypatch, capsys, edit, *source(file), "edit=truncate", "output=out")
    assert [path.name for path in tmp_path.iterdir()] == ["g.safetensors"]


def test_a_generator_in_memory_is_checked_too(images: Path, tmp_path: Path) -> None:
    from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

    with pytest.raises(UserError, match="maps of 2 channels and is not a picture generator"):
        StyleGAN2Training(Generator(8, z_dim=4, w_dim=4, channels={4: 4, 8: 4}, img_channels=2), None)  # type: ignore[arg-type]
