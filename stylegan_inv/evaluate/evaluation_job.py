"""An evaluation that is checked and ready: what is compared, by which metrics, under which protocol."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.evaluation_data import dataset_batches, invert_batches, unreadable
from stylegan_inv.evaluate.image_pairs import PictureFolders, picture_batches
from stylegan_inv.evaluate.inference_time import seconds_per_image
from stylegan_inv.evaluate.score_table import Report
from stylegan_inv.evaluate.scoring import INTEREST, Comparison, Scores
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.methods.common.base import InversionMethod, pool
from stylegan_inv.metrics.confidence import summarise
from stylegan_inv.metrics.latent import LatentEditingConsistency
from stylegan_inv.runtime.shares import Ranks
from stylegan_inv.runtime.unfinished import Unfinished


@dataclass
class Job:
    """What `stylegan_inv.evaluate` does.

    Attributes:
        metrics: Name -> metric, built.
        device: Where to compute.
        output: Folder of the results.
        options: ``split``, ``quantise``, ``steps``, ``max_images``, ``batch_size``, ``seed``, ``bootstrap`` and
            ``speed``, as in ``conf/evaluate.yaml``.
        protocol: What is known about it before; the rest is added in `report`.
        ranks: Which process this is.
        unfinished: What several processes keep until all are done.
    """

    metrics: Mapping[str, Metric]
    device: torch.device
    output: Path
    options: Mapping[str, Any]
    protocol: dict[str, str]
    ranks: Ranks
    unfinished: Unfinished

    def comparisons(self) -> Iterator[Comparison]:
        """This process's share of the reconstructions beside originals, batch by batch."""
        raise NotImplementedError

    def available(self) -> tuple[int, list[str]]:
        """How many images there are, and the names of those left out; called at the end."""
        raise NotImplementedError

    def seconds(self) -> dict[str, Any]:
        """Timings; empty where there is nothing to time."""
        return {}

    def report(self, scores: Scores, columns: Mapping[str, Tensor], left_out: Sequence[str]) -> Report:
        """Summaries, counts and the whole protocol; ``left_out`` are the names of what was not scored."""
        count, left_out = self.available()[0], list(left_out)
        bootstrap, seed = self.options["bootstrap"], self.options["seed"]
        summaries = {
            name: summarise(values, resamples=bootstrap["resamples"], level=bootstrap["level"], seed=seed)
            for name, values in columns.items()
        }
        counts = {
            "images": len(scores.names),
            "of": count,
            "left_out": len(left_out),
            "left_out_names": left_out,
            "not_finite": scores.not_finite,
        }
        said = f"{len(scores.names)} of {count}"
        if left_out:
            said += f"; {len(left_out)} left out: {name_list(left_out)}"
        if scores.not_finite:
            said += f"; {scores.not_finite} reconstructions are not finite and count as the picture a file would show"
        protocol = {
            **self.protocol,
            "images": said,
            "interest": "inside the masks of the data"
            if any(INTEREST in name for name in columns)
            else "the data have no masks, so there is no column for the region of interest",
            "interval": f"{bootstrap['level']:.0%} for the mean, percentile bootstrap over images, "
            f"{bootstrap['resamples']} resamples",
            "seed": str(seed),
            "computed by": f"torch {torch.__version__}, {self._processor()}",
            **scores.describe(),
        }
        better = {name: metric.higher_is_better for name, metric in {**scores.columns, **scores.sets}.items()}
        return Report(protocol, counts, summaries, scores.set_values(), better, self.seconds())

    def _processor(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = f"{platform.machine()} with {torch.get_num_threads()} threads"
        return threads if self.ranks.count == 1 else f"{threads} in each of {self.ranks.count} processes"


@dataclass
class MethodJob(Job):
    """A method on a data set.

    Attributes:
        method: In evaluation mode, on the device.
        data: Its ``split`` is evaluated.
    """

    method: InversionMethod
    data: ImageDataModule

    def comparisons(self) -> Iterator[Comparison]:  # noqa: D102
        return invert_batches(self.method, self._batches(self.ranks), self.options["steps"], self.options["seed"])

    def available(self) -> tuple[int, list[str]]:  # noqa: D102
        data = self.data.get(self.options["split"])
        return len(data), unreadable(data)  # type: ignore[arg-type]

    def seconds(self) -> dict[str, Any]:  # noqa: D102
        speed = self.options["speed"]
        if not speed["seconds"]:
            return {}
        seen: list[Tensor] = []
        for batch in self._batches(Ranks()):
            seen.append(self.method.source(batch))
            if sum(map(len, seen)) >= max(speed["batch_sizes"]):
                break
        return seconds_per_image(self.method, torch.cat(seen), tuple(speed["batch_sizes"]), speed["seconds"])

    def _batches(self, ranks: Ranks) -> Iterator[dict[str, Any]]:
        options = self.options
        return dataset_batches(self.data, options["split"], options["batch_size"], options["max_images"], ranks)


@dataclass
class PicturesJob(Job):
    """Pictures of another tool beside their originals."""

    pictures: PictureFolders

    def comparisons(self) -> Iterator[Comparison]:  # noqa: D102
        return picture_batches(self.pictures, self.options["batch_size"] or 8, self.options["max_images"], self.ranks)

    def available(self) -> tuple[int, list[str]]:  # noqa: D102
        return len(self.pictures), self.pictures.unmatched


def consistency_metrics(
    method: InversionMethod, directions: Sequence[str], strength: float, size: int
) -> dict[str, Metric]:
    """Latent editing consistency along each direction, ``lec_<name>``; images of ``size`` px are inverted.

    Raises:
        UserError: No such direction, or one of another generator.
    """

    def invert(picture: Tensor) -> Tensor:
        inversion = method.invert(pool(picture, size))
        if inversion.weights is not None:
            raise UserError("lec.directions: the method tunes the generator for each image, whose edits are others")
        return inversion.w

    metrics: dict[str, Metric] = {}
    for name in directions:
        direction = load_direction(name, method.generator)
        column = f"lec_{direction.name}"
        metrics[column] = LatentEditingConsistency(method.generator, invert, direction.apply, strength, direction.name)
    return metrics


def build_metrics(made: Mapping[str, Any], generator: Generator | None) -> dict[str, Metric]:
    """Metrics, those that look at codes (partials) completed by the generator, or left out where there is none."""
    metrics = {name: metric for name, metric in made.items() if not isinstance(metric, partial)}
    if generator is not None:
        metrics |= {name: metric(generator) for name, metric in made.items() if isinstance(metric, partial)}
    return {name: metrics[name] for name in made if name in metrics}
