"""What one entrant of the benchmark makes of held-out faces: every figure of every face, kept in one file.

Columns of a `Scored` are named ``<condition>/<metric>``, conditions being ``clear`` and ``covered`` (something stands
before each face), and ``edits/<attribute>/<what>``, which have a row for each strength.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.benchmark.editability import edit_columns
from stylegan_inv.benchmark.method_runs import DESCENT, TRAINED, Budget, Entrant
from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.data.images.image_files import to_uint8
from stylegan_inv.evaluate.evaluation_data import dataset_batches, invert_batches
from stylegan_inv.evaluate.evaluation_job import consistency_metrics
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.metrics.face_similarity import IdentitySimilarity
from stylegan_inv.metrics.frechet import FrechetDistance
from stylegan_inv.metrics.image import MSE, PSNR, SSIM, masked_mse
from stylegan_inv.metrics.latent import CodeSpread, DistanceToW
from stylegan_inv.metrics.perceptual_distance import EmbeddedPerceptualDistance
from stylegan_inv.utils.files import atomic_write

#: Condition -> share of the faces with something before them.
CONDITIONS = {"clear": 0.0, "covered": 1.0}
RESOLUTION, BATCH = 64, 50
_CALLS = 11  # that are timed, of which the first warms up
#: Rows of the grid, by number of the held-out face.
SHOWN = (0, 1)
#: Direction and strength of the latent editing consistency (e4e: age, 3).
CONSISTENCY = ("age", 3.0)
Scored = dict[str, np.ndarray]


@dataclass(frozen=True)
class Faces:
    """The held-out faces (seed 2) under one condition: image, mask, normals and index."""

    batch: Mapping[str, Tensor]

    @staticmethod
    def of(count: int, obstacles: float) -> Faces:
        """The first ``count``."""
        data = SynthFacesDataModule(resolution=RESOLUTION, test_size=count, val_batch_size=count, obstacles=obstacles)
        data.setup("test")
        batch = next(dataset_batches(data, "test"))
        return Faces({key: batch[key] for key in ("image", "mask", "normals", "index")})

    def batches(self, count: int) -> Any:
        """The first ``count`` in batches."""
        for first in range(0, count, BATCH):
            yield {key: value[first : min(first + BATCH, count)] for key, value in self.batch.items()}


class Keeping:
    """A method that remembers what it found, without the way there, and the seconds of CPU that it took."""

    def __init__(self, method: Any) -> None:
        self.method, self.found, self.seconds = method, list[Inversion](), 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.method, name)

    def invert(self, images: Tensor) -> Inversion:
        """As the method does."""
        # Of the process, not of the clock: the machine may have other work, and some of this takes an hour.
        started = time.process_time()
        inversion = self.method.invert(images)
        self.seconds += time.process_time() - started
        self.found.append(replace(inversion, steps=None))
        return inversion


def score(entrant: Entrant, method: Any, faces: Mapping[str, Faces], budget: Budget) -> Scored:
    """Invert the faces, clear and covered, and measure everything."""
    count, columns = budget.faces_of(entrant), Scored()
    for condition, given in faces.items():
        keeping: Any = Keeping(method)
        scores = Scores(_metrics(entrant, method, condition))
        scores.add_all(invert_batches(keeping, given.batches(count)))
        _, values = scores.rows()
        columns |= {f"{condition}/{name}": column.numpy() for name, column in values.items()}
        columns |= {f"{condition}/{name}": np.array(value) for name, value in scores.set_values().items()}
        images = torch.cat([scores.prepared(one.image, RESOLUTION) for one in keeping.found])
        if condition == "covered":
            columns |= {f"covered/{name}": c.numpy() for name, c in _behind(images, faces, count).items()}
        else:
            columns["seconds"] = np.array(_seconds(entrant, method, keeping, given, count))
            originals = given.batch["image"][: budget.edited]
            columns |= edit_columns(method.generator, keeping.found, min(len(originals), count), originals)
        shown = [row for row in SHOWN if row < count]
        columns[f"{condition}/pictures"] = to_uint8(images[shown]).numpy()
    return columns


def _metrics(entrant: Entrant, method: Any, condition: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "mse": MSE(),
        "psnr": PSNR(),
        "ssim": SSIM(),
        "id": IdentitySimilarity("face_eval"),
        "perceptual": EmbeddedPerceptualDistance("face_eval"),
        "w_distance": DistanceToW(method.generator),
        "w_spread": CodeSpread(method.generator),
    }
    if entrant.kind != DESCENT:  # a distance of sets, whose size it depends on
        metrics["frechet_embedded"] = FrechetDistance("face_eval")
    if entrant.kind == TRAINED and condition == "clear":
        direction, strength = CONSISTENCY
        metrics |= consistency_metrics(method, [direction], strength, RESOLUTION)
    return metrics


def _behind(images: Tensor, faces: Mapping[str, Faces], count: int) -> dict[str, Tensor]:
    """How much of each face's region of interest is covered, and the error there against what the obstacle hides."""
    clear, covered = (
        {key: faces[name].batch[key][:count] for key in ("image", "mask")} for name in ("clear", "covered")
    )
    hidden = (clear["mask"] - covered["mask"]).clamp_min(0)
    share = hidden.flatten(1).sum(1) / clear["mask"].flatten(1).sum(1)
    error = masked_mse(images, clear["image"], hidden)
    # A few pixels of hidden hair say nothing.
    return {"share": share, "mse_hidden": torch.where(share > 0.02, error, torch.nan)}


def _seconds(entrant: Entrant, method: Any, keeping: Keeping, faces: Faces, count: int) -> float:
    """Seconds of CPU for a face: one at a time and warm where that is quick, else in the batch that was scored."""
    if entrant.kind == DESCENT:
        return keeping.seconds / count
    if entrant.kind != TRAINED:
        return float("nan")
    single = []
    for _ in range(_CALLS):
        timed = Keeping(method)
        timed.invert(faces.batch["image"][:1])
        single.append(timed.seconds)
    return float(np.median(single[1:]))


def save(file: Path, columns: Scored) -> None:
    """Write them."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary, open(temporary, "wb") as out:
        np.savez_compressed(out, **columns)  # type: ignore[arg-type]


def load(file: Path) -> Scored:
    """Read them."""
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
