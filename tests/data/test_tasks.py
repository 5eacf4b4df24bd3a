"""Translation tasks, compared with other libraries and formulas, and their reproducibility."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.callbacks.panels import Panels
from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.loaders import WithDraws
from stylegan_inv.data.datamodules.sampler import DrawnIndex
from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.data.tasks.cartoon import Cartoon
from stylegan_inv.data.tasks.frontalization import Frontalization
from stylegan_inv.data.tasks.inpainting import Inpainting
from stylegan_inv.data.tasks.label_maps import SegmentationToFace, palette
from stylegan_inv.data.tasks.restoration import Colorization, Denoising, SuperResolution
from stylegan_inv.data.tasks.sketch import SketchToFace
from stylegan_inv.errors import UserError
from tests.cli import REPOSITORY

RANDOM = {
    "super_resolution": lambda: SuperResolution((1, 2, 4, 8), 4),
    "inpainting": lambda: Inpainting("any"),
    "denoising": Denoising,
    "frontalization": Frontalization,
}
GIVEN = {
    "segmentation": lambda: SegmentationToFace(8),
    "sketch": SketchToFace,
    "colorization": Colorization,
    "cartoon": Cartoon,
}


def batch(count: int = 6, size: int = 32, seed: int = 0) -> dict[str, Tensor]:
    """Returns smooth random images with labels, masks and indices."""
    random = np.random.default_rng(seed)
    image = ndimage.zoom(random.uniform(-1, 1, (count, 3, 4, 4)), (1, 1, size / 4, size / 4), order=1)
    return {
        "image": torch.from_numpy(image).float().clamp(-1, 1),
        "label": torch.from_numpy(random.integers(0, 8, (count, size, size))),
        "mask": torch.from_numpy(random.uniform(0, 1, (count, 1, size, size))).float(),
        "index": torch.arange(count),
    }


# -- each task ---------------------------------------------------------------------------------------------------------


def test_segmentation_is_one_hot_and_round_trips_through_an_image_file(tmp_path: Path) -> None:
    task, given = SegmentationToFace(8), batch()
    source = task(given)["source"]
    assert source.shape == (6, 8, 32, 32) and source.dtype == torch.float32
    assert torch.equal(source.sum(1), torch.ones(6, 32, 32)) and torch.equal(source.argmax(1), given["label"])
    shown = task.show(source)
    file = tmp_path / "map.png"
    Image.fromarray(((shown[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)).save(file)
    read = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)[None] / 127.5 - 1
    assert torch.equal(task.read(read), source[:1])
    with pytest.raises(UserError, match="labels 0 to 7, expected 0 to 4; give dataset.task.classes"):
        SegmentationToFace(5)(given)
    with pytest.raises(UserError, match="no label"):
        task({"image": given["image"]})


@pytest.mark.parametrize("classes", [2, 8, 9, 19, 27, 28])
def test_palette_has_distinct_colours(classes: int) -> None:
    colours = palette(classes)
    assert colours.shape == (classes, 3) and colours.abs().max() <= 1
    assert torch.cdist(colours, colours).add(10 * torch.eye(classes)).min() > 0.6


def test_sketch_matches_scipy_sobel() -> None:
    given = batch()
    source = SketchToFace(0.75, 0.1)(given)["source"]
    assert source.shape == (6, 1, 32, 32)
    levels = ((given["image"].double() + 1) / 2 * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1).numpy()
    slope = np.stack([np.hypot(*(ndimage.sobel(level, axis, mode="nearest") for axis in (0, 1))) for level in levels])
    np.testing.assert_allclose(source[:, 0], 1 - np.clip(0.75 * slope - 0.1, 0, 1), atol=1e-5)
    flat = SketchToFace()({"image": torch.full((1, 3, 8, 8), 0.3)})["source"]
    assert torch.equal(flat, torch.ones(1, 1, 8, 8)), "also along the border"
    task = SketchToFace()
    torch.testing.assert_close(task.read(task.show(source).expand(-1, 3, -1, -1)), source)


def test_super_resolution_downsamples_as_pillow() -> None:
    given = batch(size=64)
    source = SuperResolution((1,), 4)(given)["source"]
    for image, got in zip(given["image"], source, strict=True):
        for channel, low in zip(image.numpy(), got.numpy(), strict=True):
            small = np.array(Image.fromarray(channel).resize((16, 16), Image.Resampling.BICUBIC)).clip(-1, 1)
            want = Image.fromarray(small).resize((64, 64), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(low, np.array(want), atol=1e-4)
    torch.testing.assert_close(SuperResolution((1,), 1)(given)["source"], given["image"])
    # One pixel is left.
    assert SuperResolution((1,), 64)(given)["source"].std((2, 3)).max() < 1e-6


def test_super_resolution_uses_every_factor_in_training() -> None:
    given, task = batch(), SuperResolution((1, 2, 4, 8), 2)
    fixed = {f: SuperResolution((1,), f)(given)["source"] for f in (1, 2, 4, 8)}
    seen = []
    for start in range(0, 60, 6):
        source = task(given, range(start, start + 6))["source"]
        for row in range(6):
            (factor,) = (f for f, of_factor in fixed.items() if torch.equal(of_factor[row], source[row]))
            seen.append(factor)
    assert {f: seen.count(f) >= 6 for f in fixed} == dict.fromkeys(fixed, True)


def test_inpainting_triangle_is_that_of_e2style() -> None:
    given = {"image": torch.ones(40, 3, 256, 256), "index": torch.arange(40)}
    holes = (Inpainting("triangle")(given)["source"] == -1).all(1)
    seen = set()
    for hole in holes:
        rows, columns = (np.unique(axis) for axis in np.nonzero(hole.numpy()))
        assert abs(rows[0] - 35) <= 1 and abs(rows[-1] - 220) <= 1
        left, top = int(np.nonzero(hole[219].numpy())[0][0]), int(np.nonzero(hole[36].numpy())[0][0])
        base = int(hole[219].sum())
        assert min(abs(left - 35), abs(left - 70)) <= 2 and abs(base - 150) <= 3
        assert min(abs(top - 35), abs(top - 220)) <= 3
        # Base times height, halved.
        assert abs(int(hole.sum()) - 150 * 185 / 2) < 300
        seen.add((left < 50, top < 100))
    assert len(seen) == 4, "all corners occur"
    small = (Inpainting("triangle")({**given, "image": torch.ones(40, 3, 64, 64)})["source"] == -1).all(1)
    assert abs(small.float().mean() / holes.float().mean() - 1) < 0.06, "scaled with the image"


@pytest.mark.parametrize("shape", ["rectangle", "strokes", "any"])
def test_other_holes_keep_the_rest_of_the_image(shape: str) -> None:
    given = batch(24)
    source = Inpainting(shape, fill=0.25)(given)["source"]
    hole = (source == 0.25).all(1, keepdim=True)
    assert torch.equal(source.masked_fill(hole, 0), given["image"].masked_fill(hole, 0))
    share = hole.float().mean((1, 2, 3))
    assert share.min() > 0.005 and share.max() < 0.6 and len(share.unique()) > 15
    if shape == "rectangle":
        for mask in hole[:, 0].numpy():
            rows, columns = np.nonzero(mask)
            # A corner pixel of which less than half is covered is kept.
            assert 0 <= (np.ptp(rows) + 1) * (np.ptp(columns) + 1) - mask.sum() <= 4


def test_colorization_matches_pillow_grey() -> None:
    levels = torch.randint(0, 256, (1, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    source = Colorization()({"image": levels / 127.5 - 1})["source"]
    want = np.array(Image.fromarray(levels[0].permute(1, 2, 0).numpy().astype(np.uint8)).convert("L"))
    assert source.shape == (1, 3, 8, 8) and torch.equal(source[:, 0], source[:, 2])
    np.testing.assert_allclose((source[0, 0].numpy() + 1) * 127.5, want, atol=1.0)


def test_denoising_adds_one_of_two_kinds_of_noise() -> None:
    given = {"image": torch.full((64, 3, 64, 64), 0.1), "index": torch.arange(64)}
    noise = Denoising(variance=0.01, fraction=0.05)(given)["source"] - 0.1
    gaussian = (noise != 0).float().mean((1, 2, 3)) > 0.5
    assert 16 <= int(gaussian.sum()) <= 48
    # 0.1 of [0, 1] is 0.2 of [-1, 1].
    torch.testing.assert_close(noise[gaussian].std(), torch.tensor(0.2), rtol=0.01, atol=0)
    speckled = noise[~gaussian]
    assert set(speckled.unique().mul(10).round().tolist()) == {-11, 0, 9}, "black, unchanged, white"
    assert torch.equal((speckled != 0).any(1), (speckled != 0).all(1)), "whole pixels"
    black, white = (speckled < 0).float().mean(), (speckled > 0).float().mean()
    assert abs(black - 0.025) < 0.002 and abs(white - 0.025) < 0.002


def test_frontalization_flips_source_and_target_independently() -> None:
    given, task = batch(), Frontalization()
    image, flipped = given["image"], given["image"].flip(-1)
    counts = dict.fromkeys(itertools.product((False, True), repeat=2), 0)
    for start in range(0, 120, 6):
        made = task(given, range(start, start + 6))
        for row in range(6):
            flips = torch.equal(made["source"][row], flipped[row]), torch.equal(made["image"][row], flipped[row])
            assert flips[0] or torch.equal(made["source"][row], image[row])
            for name in ("image", "mask", "label"):
                want = given[name][row].flip(-1) if flips[1] else given[name][row]
                assert torch.equal(made[name][row], want), "maps are flipped with the target"
            counts[flips] += 1
    assert min(counts.values()) >= 15 and sum(counts.values()) == 120
    assert torch.equal(task(given)["source"], image), "evaluation flips nothing"
    assert torch.equal(task({**given, "source": flipped}, range(6))["source"], flipped), "given pairs are kept"


def test_cartoon_has_flat_levels_strong_colours_and_dark_lines() -> None:
    ramp = torch.linspace(-1, 1, 256).expand(1, 3, 256, 256)
    made = Cartoon(levels=5)({"image": ramp})
    assert torch.equal(made["source"], ramp)
    slope = made["image"][0, 0, 0].diff() * 255 / 2
    whole = ((ramp[0, 0, 0] + 1) * 2 - ((ramp[0, 0, 0] + 1) * 2).round()).abs()[:-1]
    assert slope[whole < 0.1].max() < 0.1 and slope[whole > 0.4].min() > 2 and slope.min() > -1e-3
    red = torch.tensor([0.3, -0.1, -0.1])[None, :, None, None].expand(1, 3, 8, 8)
    image = Cartoon(levels=5, colour=1.5)({"image": red})["image"][0, :, 4, 4]
    assert image[0] - image[1] == pytest.approx(0.6, abs=1e-5)
    edge = torch.where(torch.arange(64) < 32, -0.2, 0.8).expand(1, 3, 64, 64)
    assert Cartoon()({"image": edge})["image"][0, 0, 10, 31:33].max() < -0.2, "darker than both sides"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SegmentationToFace(1), "task.classes=1"),
        (lambda: SketchToFace(strength=0), "task.strength=0"),
        (lambda: SuperResolution((0, 2)), "task.factors=0"),
        (lambda: SuperResolution(()), "task.factors"),
        (lambda: Inpainting("circle"), "task.hole=circle: expected one of triangle, rectangle, strokes, any"),
        (lambda: Inpainting(fill=3), "task.fill=3"),
        (lambda: Denoising(fraction=2), "task.fraction=2"),
        (lambda: Cartoon(levels=1), "style.levels=1"),
        (lambda: Colorization()({"image": torch.zeros(2, 3, 8, 9)}), r"\(2, 3, 8, 9\), expected \(B, 3, R, R\)"),
    ],
)
def test_bad_arguments(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


# -- randomness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*RANDOM, *GIVEN])
def test_sources_depend_on_seed_and_draw_only(name: str) -> None:
    given, task = batch(), {**RANDOM, **GIVEN}[name]()
    draws = [5, 17, 3, 1000, 2**40, 9]
    whole = task(given, draws, seed=4)
    assert "source" not in given, "the batch itself is not changed"
    for row, draw in enumerate(draws):
        alone = {**RANDOM, **GIVEN}[name]()({k: v[row : row + 1] for k, v in given.items()}, [draw], seed=4)
        for key in ("source", "image"):
            torch.testing.assert_close(alone[key][0], whole[key][row], rtol=1e-5, atol=1e-6)
    changed = [
        not torch.equal(task(given, [d + 1000 * k for d in draws], seed=s)["source"], whole["source"])
        for k, s in ((1, 4), (0, 5))
    ]
    assert changed == [name in RANDOM] * 2
    evaluated = task(given)["source"]
    assert torch.equal(evaluated, task(given)["source"])
    last = task({k: v[3:] for k, v in given.items()})["source"]
    torch.testing.assert_close(last, evaluated[3:], rtol=1e-5, atol=1e-6)


class Skipping(Dataset[dict[str, Any]]):
    """A dataset that skips index 3, as ``on_bad_image=skip`` does."""

    def __len__(self) -> int:
        return 5

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        return [{"index": int(i)} for i in indices if i != 3]


def test_draws_stay_with_their_images_if_some_are_skipped() -> None:
    items = WithDraws(Skipping()).__getitems__(
        [DrawnIndex(2, 70), DrawnIndex(3, 71), DrawnIndex(3, 72), DrawnIndex(0, 73), DrawnIndex(2, 74)]
    )
    assert [(item["index"], item["draw"]) for item in items] == [(2, 70), (0, 73), (2, 74)]
    assert WithDraws(Skipping()).__getitems__([-1])[0]["draw"] == -1


# -- in the data modules -----------------------------------------------------------------------------------------------


def module(**kwargs: Any) -> SynthFacesDataModule:
    arguments = {"resolution": 32, "train_size": 10, "val_size": 5, "batch_size": 4, "seed": 3}
    return SynthFacesDataModule(**{**arguments, "task": Inpainting("any"), **kwargs})


def test_training_batches_repeat_and_do_not_depend_on_workers_or_resume() -> None:
    whole = list(itertools.islice(module().train_dataloader(), 5))
    assert all("draw" not in part and part["source"].shape == (4, 3, 32, 32) for part in whole)
    # The third batch of the 10 images reaches into the next epoch, where an image has another hole.
    holes = {}
    for part in whole:
        for index, image, source in zip(part["index"].tolist(), part["image"], part["source"], strict=True):
            assert not torch.equal(image, source)
            holes.setdefault(index, []).append(source)
    assert any(not torch.equal(*twice[:2]) for twice in holes.values() if len(twice) > 1)
    resumed = module(num_workers=2)
    resumed.load_state_dict({"draw": 8, "batches": 0, "seed": 3, "size": 10})
    for again, before in zip(itertools.islice(resumed.train_dataloader(), 3), whole[2:], strict=True):
        assert torch.equal(again["index"], before["index"]) and torch.equal(again["source"], before["source"])
    other = next(iter(module(task=Inpainting("rectangle")).train_dataloader()))
    assert torch.equal(other["image"], whole[0]["image"]) and not torch.equal(other["source"], whole[0]["source"])


def test_evaluation_does_not_depend_on_the_batch_size() -> None:
    a, b = (torch.cat([p["source"] for p in module(val_batch_size=n).val_dataloader()]) for n in (2, 5))
    assert torch.equal(a, b)
    shown = module(task=SegmentationToFace(8)).panel_batch(3)
    assert shown["source"].shape == (3, 8, 32, 32) and shown["shown"].shape == (3, 3, 32, 32)
    assert torch.equal(module().panel_images(3), shown["image"])


def test_folders_with_bad_files_keep_their_draws(tmp_path: Path) -> None:
    for i in range(9):
        Image.effect_noise((32, 32), 60).convert("RGB").save(tmp_path / f"{i}.png")
    (tmp_path / "2.png").write_bytes(b"")

    def train(mode: str) -> tuple[list[int], Tensor]:
        data = FolderDataModule(
            root=tmp_path, val_size=1, resolution=32, batch_size=8, horizontal_flip=0.0, train_shuffle=False,
            on_bad_image=mode, task=Denoising(),
        )  # fmt: skip
        part = next(iter(data.train_dataloader()))
        return part["index"].tolist(), part["source"]

    (skipped, without), (replaced, all_rows) = train("skip"), train("replace")
    assert skipped == [0, 1, 3, 4, 5, 6, 7] and len(replaced) == 8 and replaced[2] != 2
    assert torch.equal(without, torch.cat([all_rows[:2], all_rows[3:]])), "each image has the noise of its own draw"


class Echo(torch.nn.Module):
    """Returns the mean colour of the source."""

    device = torch.device("cpu")

    def source(self, batch: dict[str, Any]) -> Tensor:
        return batch.get("source", batch["image"])

    def invert(self, images: Tensor) -> Any:
        from stylegan_inv.methods.common.base import Inversion

        return Inversion(torch.zeros(len(images), 1, 1), images[:, :1].expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("task", "names"),
    [(None, ["input", "reconstruction", "difference"]), (SketchToFace(), ["source", "reconstruction", "target"])],
)
def test_panels_show_source_and_target(task: Any, names: list[str], tmp_path: Path) -> None:
    class Trainer:
        datamodule = module(task=task)

    columns = Panels(str(tmp_path), images=3)._columns(Trainer(), Echo())  # type: ignore[arg-type]
    assert list(columns) == names
    held_out = Trainer.datamodule.panel_batch(3)
    assert torch.equal(columns[names[0]], held_out["image" if task is None else "shown"])
    if task is not None:
        assert torch.equal(columns["target"], held_out["image"])


# -- config ------------------------------------------------------------------------------------------------------------


def composed(*overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("train", overrides=list(overrides))


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONF_DIR / "task").glob("*.yaml")))
def test_every_task_file_builds_and_fits_the_method(name: str) -> None:
    cfg = composed("method=psp", f"+task={name}", "dataset.resolution=32")
    source = next(iter(instantiate(cfg.dataset).train_dataloader()))["source"]
    assert source.shape[1] == cfg.method.in_channels


def test_weights_of_the_papers_table() -> None:
    table = {  # l2, lpips, id, w_norm; see the header of each recipe for tasks without published weights
        "segmentation": (1, 0.8, 0, 0.005),
        "sketch": (1, 0.8, 0, 0.005),
        "super_resolution": (1, 0.8, 0.1, 0.005),
        "frontalization": (0.001, 0.08, 1, 0.005),
        "toonify": (1, 0.8, 1, 0.025),
    }
    for name, weights in table.items():
        loss = composed(f"experiment=psp_{name}_synthfaces").loss
        assert tuple(loss[term].weight for term in ("l2", "perceptual", "id", "w_norm")) == weights, name
        assert ("l2_crop" in loss) == (name == "frontalization")
    assert (loss := composed("experiment=psp_frontalization_synthfaces").loss).l2_crop.weight == 0.01
    assert loss.perceptual_crop.weight == 0.8


PAGES = sorted(p for kind in ("psp", "toon") for p in REPOSITORY.glob(f"experiments/{kind}_*_synthfaces/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_commands_of_the_pages_compose(page: Path) -> None:
    text = page.read_text().replace("\\\n", " ")
    lines = re.findall(r"^    python -m stylegan_inv\.(train|invert) ([^#\n]*)", text, re.M)
    assert lines
    for command, line in lines:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            compose(command, overrides=shlex.split(line))
