"""A checked evaluation: what is compared, by which metrics, under which protocol."""

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
from stylegan_inv.evaluate.columns import Column
from stylegan_inv.evaluate.evaluation_data import dataset_batches, invert_batches, unreadable_images
from stylegan_inv.evaluate.image_pairs import ImagePairs, pair_batches
from stylegan_inv.evaluate.inference_time import seconds_per_image
from stylegan_inv.evaluate.score_table import Results
from stylegan_inv.evaluate.scoring import Comparison, Scores
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.methods.common.base import InversionMethod, pool
from stylegan_inv.methods.common.domain_parts import image_domain
from stylegan_inv.metrics.confidence import summarise
from stylegan_inv.metrics.editing_consistency import LatentEditingConsistency
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.utils.domains import check_domains

_PAIRS_PER_BATCH = 8


@dataclass
class EvaluationJob:
    """Base class of what `stylegan_inv.evaluate` does.

    Attributes:
        metrics: Name -> metric.
        device: Device of the metrics.
        output: Folder of the results.
        options: ``split``, ``quantise``, ``steps``, ``max_images``, ``batch_size``, ``seed``, ``bootstrap`` and
            ``speed``, as in ``conf/evaluate.yaml``.
        protocol: The part of the protocol that is known in advance; `results` adds the rest.
        ranks: Rank and world size of this process.
        progress: Parts of several processes, until all have finished.
    """

    metrics: Mapping[str, Metric]
    device: torch.device
    output: Path
    options: Mapping[str, Any]
    protocol: dict[str, str]
    ranks: Ranks
    progress: ResumableJob

    def comparisons(self) -> Iterator[Comparison]:
        """Yields this rank's shard of the reconstructions with their targets."""
        raise NotImplementedError

    def image_count(self) -> int:
        """Returns the number of images in the data."""
        raise NotImplementedError

    def left_out(self) -> list[str]:
        """Returns the names of the images that could not be scored; complete after `comparisons`."""
        raise NotImplementedError

    def seconds(self) -> dict[str, Any]:
        """Returns inference times; empty if there is no method."""
        return {}

    def results(self, scores: Scores, columns: Mapping[Column, Tensor], left_out: Sequence[str]) -> Results:
        """Returns the results.

        Args:
            scores: Scores of all images.
            columns: Values of each column, see `Scores.rows`.
            left_out: Names of the images that were not scored.
        """
        bootstrap, seed = self.options["bootstrap"], self.options["seed"]
        summaries = {
            column: summarise(values, resamples=bootstrap["resamples"], level=bootstrap["level"], seed=seed)
            for column, values in columns.items()
        }
        counts = {
            "images": len(scores.names),
            "of": self.image_count(),
            "left_out": len(left_out),
            "left_out_names": list(left_out),
            "not_finite": scores.not_finite,
        }
        protocol = {
            **self.protocol,
            "images": _describe_counts(counts),
            "interest": "inside the masks of the data"
            if any(column.interest for column in columns)
            else "the data have no masks, so there is no column for the region of interest",
            "interval": f"{bootstrap['level']:.0%} for the mean, percentile bootstrap over images, "
            f"{bootstrap['resamples']} resamples",
            "seed": str(seed),
            "computed by": f"torch {torch.__version__}, {self._processor()}",
            **scores.describe(),
        }
        return Results(protocol, counts, summaries, scores.set_values(), scores.higher_is_better(), self.seconds())

    def _processor(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        threads = f"{platform.machine()} with {torch.get_num_threads()} threads"
        return threads if self.ranks.world_size == 1 else f"{threads} in each of {self.ranks.world_size} processes"


@dataclass
class MethodJob(EvaluationJob):
    """Evaluates a method on a data set.

    Attributes:
        method: In evaluation mode, on the device.
        data: Its ``split`` is evaluated.
    """

    method: InversionMethod
    data: ImageDataModule

    def comparisons(self) -> Iterator[Comparison]:  # noqa: D102
        return invert_batches(self.method, self._batches(self.ranks), self.options["steps"], self.options["seed"])

    def image_count(self) -> int:  # noqa: D102
        return len(self.data.get(self.options["split"]))  # type: ignore[arg-type]

    def left_out(self) -> list[str]:  # noqa: D102
        return unreadable_images(self.data.get(self.options["split"]))

    def seconds(self) -> dict[str, Any]:  # noqa: D102
        speed = self.options["speed"]
        if not speed["seconds"]:
            return {}
        sources: list[Tensor] = []
        for batch in self._batches(Ranks()):
            sources.append(self.method.source(batch))
            if sum(map(len, sources)) >= max(speed["batch_sizes"]):
                break
        return seconds_per_image(self.method, torch.cat(sources), tuple(speed["batch_sizes"]), speed["seconds"])

    def _batches(self, ranks: Ranks) -> Iterator[dict[str, Any]]:
        options = self.options
        return dataset_batches(self.data, options["split"], options["batch_size"], options["max_images"], ranks)


@dataclass
class ImagePairsJob(EvaluationJob):
    """Evaluates reconstructions in image files.

    Attributes:
        pairs: The files, with those of their targets.
    """

    pairs: ImagePairs

    def comparisons(self) -> Iterator[Comparison]:  # noqa: D102
        batch_size = self.options["batch_size"] or _PAIRS_PER_BATCH
        return pair_batches(self.pairs, batch_size, self.options["max_images"], self.ranks)

    def image_count(self) -> int:  # noqa: D102
        return len(self.pairs)

    def left_out(self) -> list[str]:  # noqa: D102
        return self.pairs.unmatched + self.pairs.other_formats


def consistency_metrics(
    method: InversionMethod, directions: Sequence[str], strength: float, size: int, any_domain: bool = False
) -> dict[str, Metric]:
    """Returns ``lec_<name>`` -> latent editing consistency along a direction.

    Args:
        method: The method that inverts the edited images.
        directions: Names or files of directions.
        strength: Strength of the edits.
        size: Side length at which edited images are inverted.
        any_domain: Whether directions of another domain are allowed.

    Raises:
        UserError: A direction that does not exist or belongs to another generator.
    """

    def invert(images: Tensor) -> Tensor:
        inversion = method.invert(pool(images, size))
        if inversion.weights is not None:
            raise UserError("lec.directions: the method tunes the generator for each image, whose edits are others")
        return inversion.w

    metrics: dict[str, Metric] = {}
    for name in directions:
        direction = load_direction(name)
        parts = {f"direction {direction.name}": direction}
        check_domains("the generator is", image_domain(method), parts, any_domain)
        direction.check_generator(method.generator)
        column = f"lec_{direction.name}"
        metrics[column] = LatentEditingConsistency(method.generator, invert, direction.apply, strength, direction.name)
    return metrics


def build_metrics(metrics: Mapping[str, Any], generator: Generator | None) -> dict[str, Metric]:
    """Returns metrics in the given order; partial ones get the generator.

    Args:
        metrics: Name -> metric, or a partial that takes the generator.
        generator: None leaves out the metrics that need one.
    """
    built = {name: metric for name, metric in metrics.items() if not isinstance(metric, partial)}
    if generator is not None:
        built |= {name: metric(generator) for name, metric in metrics.items() if isinstance(metric, partial)}
    return {name: built[name] for name in metrics if name in built}


def _describe_counts(counts: Mapping[str, Any]) -> str:
    text = f"{counts['images']} of {counts['of']}"
    if counts["left_out"]:
        text += f"; {counts['left_out']} left out: {name_list(counts['left_out_names'])}"
    if counts["not_finite"]:
        text += f"; {counts['not_finite']} reconstructions are not finite and are scored as an image file shows them"
    return text
