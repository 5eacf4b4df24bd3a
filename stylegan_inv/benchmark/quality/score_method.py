"""Scores a method of the benchmark on the held-out faces."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.benchmark.quality.compared_methods import PER_IMAGE, TRAINED, Budget, ComparedMethod
from stylegan_inv.benchmark.quality.editability import EditedFaces
from stylegan_inv.benchmark.quality.held_out_faces import CLEAR, COVERED, RESOLUTION, Faces
from stylegan_inv.benchmark.quality.method_scores import STRENGTH, MethodScores
from stylegan_inv.data.images.image_files import to_uint8
from stylegan_inv.evaluate.evaluation_data import invert_batches
from stylegan_inv.evaluate.evaluation_job import consistency_metrics
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.generators import Generator
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.metrics.face_similarity import IdentitySimilarity
from stylegan_inv.metrics.frechet import FrechetDistance
from stylegan_inv.metrics.image import MSE, PSNR, SSIM, masked_mse
from stylegan_inv.metrics.latent import CodeSpread, DistanceToW, StyleSpaceDistance
from stylegan_inv.metrics.perceptual_distance import EmbeddedPerceptualDistance

#: Indices of the held-out faces in the figure of reconstructions.
SHOWN = (0, 1)
#: Edits of the first held-out face in the figures of the matrix, and the key of their images.
SHOWN_EDITS, EDITED = ("age", "eyeglasses", "smile"), "edited"
#: Direction and strength of the latent editing consistency (e4e, section 5: age; strength 3).
CONSISTENCY = ("age", 3.0)
#: Timed calls of a method, of which the first is a warm-up.
_CALLS = 11
#: The error of the hidden part is undefined if it is a smaller fraction of the face.
_LEAST_HIDDEN = 0.02


class Inverter(Protocol):
    """What the benchmark uses of a method."""

    generator: Generator

    @property
    def device(self) -> torch.device: ...  # noqa: D102

    def source(self, batch: Mapping[str, Tensor]) -> Tensor: ...  # noqa: D102

    def invert(self, images: Tensor) -> Inversion: ...  # noqa: D102


class Recorder:
    """Inverts with a method and records its inversions and its CPU time.

    Args:
        method: The method.

    Attributes:
        inversions: All inversions so far, without their refinement steps.
        seconds: CPU seconds of all calls.
    """

    def __init__(self, method: Inverter) -> None:
        self.method = method
        self.inversions: list[Inversion] = []
        self.seconds = 0.0

    @property
    def device(self) -> torch.device:
        """Device of the method."""
        return self.method.device

    def source(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Returns what the method inverts."""
        return self.method.source(batch)

    def with_classes(self, labels: Tensor | None) -> AbstractContextManager[None]:
        """See :meth:`.Generator.with_classes`."""
        return self.method.generator.with_classes(labels)

    def invert(self, images: Tensor) -> Inversion:
        """Calls the method."""
        # CPU time of the process: other processes of the machine do not change it.
        started = time.process_time()
        inversion = self.method.invert(images)
        self.seconds += time.process_time() - started
        self.inversions.append(replace(inversion, steps=None))
        return inversion


def score_method(
    compared: ComparedMethod, method: Inverter, faces: Mapping[str, Faces], budget: Budget
) -> MethodScores:
    """Inverts the faces of each condition and computes all metrics.

    Args:
        compared: Description of the method.
        method: The method, in evaluation mode.
        faces: Condition -> faces.
        budget: Numbers of faces.

    Returns:
        The scores of each face.
    """
    count = budget.faces_of(compared)
    found = MethodScores({}, {}, {}, {})
    for condition, held_out in faces.items():
        recorder = Recorder(method)
        scores = Scores(_metrics(compared, method, condition))
        scores.add_all(invert_batches(cast(InversionMethod, recorder), held_out.batches(count)))
        _, values = scores.rows()
        for column, value in values.items():
            if not column.step:
                found.columns[f"{condition}/{column.label}"] = value.numpy()
            elif condition == CLEAR:
                found.steps.setdefault(column.label, {})[column.step] = value.numpy()
        found.columns |= {f"{condition}/{name}": np.array(value) for name, value in scores.set_values().items()}
        images = torch.cat([scores.prepared(one.image, RESOLUTION) for one in recorder.inversions])
        if condition == COVERED:
            found.columns |= _hidden_part(images, faces, count)
        else:
            found.columns["seconds"] = np.array(_seconds(compared, method, recorder, held_out, count))
            originals = held_out.batch["image"][: budget.edited_faces]
            edited = min(len(originals), count)
            own = method if isinstance(method, InversionMethod) else None  # or another project's
            edits = EditedFaces(method.generator, recorder.inversions, edited, originals, own)
            found.edits = edits.measure()
            if compared.kind != PER_IMAGE:  # as all distances of sets
                distance = edits.frechet(held_out.batch["image"], STRENGTH)
                found.columns["edits/frechet"] = np.array(distance)
            shown = [edits.images(name, STRENGTH)[:1] for name in SHOWN_EDITS]
            found.images[EDITED] = to_uint8(torch.cat(shown)).numpy()
        found.images[condition] = to_uint8(images[[index for index in SHOWN if index < count]]).numpy()
    return found


def _metrics(compared: ComparedMethod, method: Inverter, condition: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "mse": MSE(),
        "psnr": PSNR(),
        "ssim": SSIM(),
        "id": IdentitySimilarity("face_eval"),
        "perceptual": EmbeddedPerceptualDistance("face_eval"),
        "w_distance": DistanceToW(method.generator),
        "w_spread": CodeSpread(method.generator),
        "nscd": StyleSpaceDistance(method.generator),
    }
    if compared.kind != PER_IMAGE:  # the distance depends on the number of images
        metrics["frechet_embedded"] = FrechetDistance("face_eval")
    # An edit of one image's own weights is none of the generator.
    if compared.kind == TRAINED and condition == CLEAR and not getattr(method, "tunes_weights", False):
        direction, strength = CONSISTENCY
        metrics |= consistency_metrics(cast(InversionMethod, method), [direction], strength, RESOLUTION)
    return metrics


def _hidden_part(images: Tensor, faces: Mapping[str, Faces], count: int) -> dict[str, np.ndarray]:
    """Returns the covered fraction of each region of interest, and its error against the face without obstacle."""
    clear, covered = ({key: faces[name].batch[key][:count] for key in ("image", "mask")} for name in (CLEAR, COVERED))
    hidden = (clear["mask"] - covered["mask"]).clamp_min(0)
    fraction = hidden.flatten(1).sum(1) / clear["mask"].flatten(1).sum(1)
    error = masked_mse(images, clear["image"], hidden)
    return {
        "covered/fraction": fraction.numpy(),
        "covered/mse_hidden": torch.where(fraction > _LEAST_HIDDEN, error, torch.nan).numpy(),
    }


def _seconds(compared: ComparedMethod, method: Inverter, recorder: Recorder, faces: Faces, count: int) -> float:
    """Returns the CPU seconds for a face: measured one face at a time for trained methods, else in batches."""
    if compared.kind == PER_IMAGE:
        return recorder.seconds / count
    if compared.kind != TRAINED:
        return float("nan")
    single = []
    for _ in range(_CALLS):
        timed = Recorder(method)
        timed.invert(faces.batch["image"][:1])
        single.append(timed.seconds)
    return float(np.median(single[1:]))
