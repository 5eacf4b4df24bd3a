"""Translation tasks: what a method sees in place of the picture that it is to produce (pSp, section 4).

A :class:`Task` adds ``source`` (B, C, H, W) to a batch with ``image`` (B, 3, H, W). What it draws at random depends on
(seed, draw) alone in training, so that a resumed run repeats it, and on the image's index alone in evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from stylegan_inv.errors import UserError

Randoms = Sequence[np.random.Generator]

_TRAINING, _EVALUATION = 1, 2  # streams of random numbers
#: What turns with the picture when it is mirrored.
_MAPS = ("image", "mask", "label", "obstacle")


class Task:
    """Base of the tasks: a subclass writes :meth:`translate`, and the other two if its sources are no RGB pictures."""

    def __call__(self, batch: Mapping[str, Any], draws: Sequence[int] | None = None, seed: int = 0) -> dict[str, Any]:
        """The batch with ``source`` added, and whatever else the task replaces.

        Args:
            batch: ``image`` (B, 3, H, W) in [-1, 1], with ``index`` (B,) if the images come from a data set.
            draws: Training: the draw of each image, see :class:`.Draw`. None: evaluation,
                which gives the same for an image every time.
            seed: Of the training.

        Raises:
            UserError: The batch lacks what the task needs.
        """
        image = batch["image"]
        if image.ndim != 4 or image.shape[-1] != image.shape[-2]:
            raise UserError(f"{type(self).__name__} got images of shape {tuple(image.shape)}, expected (B, 3, R, R)")
        if draws is not None:
            randoms = [_random(seed, _TRAINING, draw) for draw in draws]
        else:
            index = batch.get("index", torch.arange(len(image)))
            randoms = [_random(0, _EVALUATION, int(number)) for number in index]
        return {**batch, **self.translate(batch, randoms, draws is not None)}

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:
        """``source`` and the entries to replace; ``randoms`` has one source of random numbers for each image."""
        raise NotImplementedError

    def read(self, pictures: Tensor) -> Tensor:
        """Sources as :meth:`show` draws them, (B, 3, H, W) in [-1, 1] from image files -> ``source`` (B, C, H, W)."""
        return pictures

    def show(self, source: Tensor) -> Tensor:
        """``source`` -> pictures (B, 1 or 3, H, W) in [-1, 1] for people."""
        return source


class SegmentationToFace(Task):
    """Label map -> face: ``label`` (B, H, W) int64 as one-hot channels (``celebs_seg_to_face``, there 19 classes).

    As a picture each class has a colour, see :func:`palette`; for :meth:`read` give them at the method's own
    resolution, as colours between two classes may be nearest to a third.

    Args:
        classes: C; labels are 0 to C - 1.
    """

    def __init__(self, classes: int) -> None:
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise UserError(f"task.classes={classes!r}: expected a whole number of at least 2")
        self.classes = classes

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        if "label" not in batch:
            raise UserError(
                f"segmentation: the data give {', '.join(batch)} but no label; give dataset=synthfaces, or "
                "dataset=paired with dataset.sources=labels"
            )
        return {"source": self._one_hot(batch["label"])}

    def _one_hot(self, label: Tensor) -> Tensor:
        if int(label.min()) < 0 or int(label.max()) >= self.classes:
            raise UserError(
                f"segmentation: got labels {int(label.min())} to {int(label.max())}, expected 0 to {self.classes - 1}; "
                "give dataset.task.classes and the same number as method.in_channels"
            )
        return F.one_hot(label.long(), self.classes).permute(0, 3, 1, 2).float()

    def read(self, pictures: Tensor) -> Tensor:  # noqa: D102
        colours = palette(self.classes).to(pictures)
        distance = (pictures[:, None] - colours[None, :, :, None, None]).square().sum(2)
        return self._one_hot(distance.argmin(1))

    def show(self, source: Tensor) -> Tensor:  # noqa: D102
        return palette(self.classes).to(source)[source.argmax(1)].permute(0, 3, 1, 2)


class SketchToFace(Task):
    """Line drawing -> face: one channel, 0 a line and 1 paper, as ``ToTensor`` gives it (``celebs_sketch_to_face``).

    Lines are where grey levels change: with g the length of the Sobel gradient of the grey image in [0, 1],
    ``1 - clamp(strength g - threshold)``. The authors add the filter's answers to the image and to its inverse, 0.75
    each, which makes its absolute value, and then thin the lines with a network; here a threshold only takes
    the weakest away.

    Args:
        strength: 0.75 as there; more draws fainter edges.
        threshold: what stays white.
    """

    def __init__(self, strength: float = 0.75, threshold: float = 0.1) -> None:
        if not strength > 0 or not 0 <= threshold < 1:
            raise UserError(f"task.strength={strength}, task.threshold={threshold}: expected above 0, and 0 to 1")
        self.strength, self.threshold = strength, threshold

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        levels = F.pad((grey(batch["image"]) + 1) / 2, (1, 1, 1, 1), mode="replicate")
        across = levels.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        slope = F.conv2d(levels, torch.stack([across, across.T])[:, None])
        lines = self.strength * torch.linalg.vector_norm(slope, dim=1, keepdim=True) - self.threshold
        return {"source": 1 - lines.clamp(0, 1)}

    def read(self, pictures: Tensor) -> Tensor:  # noqa: D102
        return (grey(pictures) + 1) / 2

    def show(self, source: Tensor) -> Tensor:  # noqa: D102
        return 2 * source - 1


class SuperResolution(Task):
    """Few pixels -> face: reduced by a factor (antialiased bicubic, a = -0.5), then enlarged again (bilinear).

    Args:
        factors: one of them at random for each training image (``resize_factors``; the paper's are for 256 px).
        evaluation_factor: the one of validation and test.
    """

    def __init__(self, factors: Sequence[int] = (1, 2, 4, 8, 16, 32), evaluation_factor: int = 8) -> None:
        if not factors or any(isinstance(f, bool) or int(f) != f or f < 1 for f in (*factors, evaluation_factor)):
            raise UserError(
                f"task.factors={list(factors)}, task.evaluation_factor={evaluation_factor}: expected whole numbers of "
                "at least 1"
            )
        self.factors, self.evaluation_factor = tuple(factors), evaluation_factor

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        chosen = [_one(random, self.factors) if training else self.evaluation_factor for random in randoms]
        source = image.clone()
        for factor in set(chosen) - {1}:
            rows = [row for row, of_row in enumerate(chosen) if of_row == factor]
            source[rows] = reduce(image[rows], factor)
        return {"source": source}


class Inpainting(Task):
    """Picture with a hole -> face. The authors show the task without publishing its data.

    ``triangle`` is E2Style's: in pixels of 256, (35 or 220, 35), (x, 220) and (x + 150, 220) with x 35 or 70, scaled to
    the image. ``rectangle`` has sides of a fifth to half of the image, ``strokes`` are one to four thick broken lines.

    Args:
        hole: ``triangle``, ``rectangle``, ``strokes`` or ``any`` of them at random.
        fill: grey level of the hole, -1 for black.
    """

    SHAPES = ("triangle", "rectangle", "strokes")

    def __init__(self, hole: str = "triangle", fill: float = -1.0) -> None:
        if hole not in (*self.SHAPES, "any"):
            raise UserError(f"task.hole={hole!r}: expected {', '.join(self.SHAPES)} or any")
        if not -1 <= fill <= 1:
            raise UserError(f"task.fill={fill}: expected a grey level in [-1, 1]")
        self.shapes, self.fill = self.SHAPES if hole == "any" else (hole,), fill

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        holes = torch.stack([self.hole(image.shape[-1], random) for random in randoms]).to(image.device)
        return {"source": image.masked_fill(holes, self.fill)}

    def hole(self, size: int, random: np.random.Generator) -> Tensor:
        """What is missing, (1, size, size) bool."""
        side = max(size, 256)  # Pillow rounds corners to pixels; small pictures get what is left of large ones
        picture = Image.new("L", (side, side))
        getattr(self, f"_{_one(random, self.shapes)}")(ImageDraw.Draw(picture), side, random)
        return torch.from_numpy(np.array(picture.resize((size, size), Image.Resampling.BOX)) > 127)[None]

    @staticmethod
    def _triangle(draw: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
        top, left = _one(random, (35, 220)), _one(random, (35, 70))
        draw.polygon([(x * size / 256, y * size / 256) for x, y in ((top, 35), (left, 220), (left + 150, 220))], 255)

    @staticmethod
    def _rectangle(draw: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
        sides = random.uniform(0.2, 0.5, 2)
        corner = random.uniform(0, 1 - sides)
        draw.rectangle([*(corner * size), *((corner + sides) * size - 1)], 255)

    @staticmethod
    def _strokes(draw: ImageDraw.ImageDraw, size: int, random: np.random.Generator) -> None:
        for _ in range(int(random.integers(1, 5))):
            points = [tuple(point * size) for point in random.uniform(0.1, 0.9, (int(random.integers(2, 6)), 2))]
            draw.line(points, 255, width=max(1, round(size * random.uniform(0.04, 0.12))), joint="curve")


class Colorization(Task):
    """Grey picture -> coloured face; the grey levels in all three channels (E2Style)."""

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        return {"source": grey(batch["image"]).expand_as(batch["image"]).clone()}


class Denoising(Task):
    """Noisy picture -> face: for each image at random Gaussian noise, or salt and pepper (E2Style).

    Args:
        variance: of the Gaussian noise, for grey levels in [0, 1].
        share: of the pixels that become black or white.
    """

    def __init__(self, variance: float = 0.01, share: float = 0.05) -> None:
        if not variance >= 0 or not 0 <= share <= 1:
            raise UserError(f"task.variance={variance}, task.share={share}: expected at least 0, and 0 to 1")
        self.variance, self.share = variance, share

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        rows = [self._noisy(image.cpu(), random) for image, random in zip(batch["image"], randoms, strict=True)]
        return {"source": torch.stack(rows).to(batch["image"])}

    def _noisy(self, image: Tensor, random: np.random.Generator) -> Tensor:
        if random.random() < 0.5:
            # [0, 1] is half as wide as [-1, 1].
            noise = torch.from_numpy(random.standard_normal(tuple(image.shape), dtype=np.float32))
            return (image + 2 * self.variance**0.5 * noise).clamp(-1, 1)
        level = torch.from_numpy(random.random(tuple(image.shape[-2:]), dtype=np.float32))
        return image.masked_fill(level < self.share / 2, -1.0).masked_fill(level >= 1 - self.share / 2, 1.0)


class Frontalization(Task):
    """Face -> the same face from the front, learnt without pairs (``ffhq_frontalize``).

    Source and target are mirrored independently, each with probability 0.5 (authors, pSp issues 66 and 89): the method
    cannot know which way the target looks, and does best with one that looks ahead. Nothing is mirrored in evaluation.
    Data that bring a ``source`` of their own, as ``dataset=synthfaces_paired`` does for its validation, are left alone.
    """

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        if "source" in batch:
            return {}
        if not training:
            return {"source": batch["image"]}
        mirrored = torch.tensor([[random.random() < 0.5 for _ in range(2)] for random in randoms])
        maps = {name: _mirror(batch[name], mirrored[:, 1]) for name in _MAPS if name in batch}
        return {**maps, "source": _mirror(batch["image"], mirrored[:, 0])}


class WithDraws(Dataset[dict[str, Any]]):
    """A data set whose items carry the ``draw`` they were made for (an index is its own draw if it has none)."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.images[index], "draw": getattr(index, "draw", int(index))}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch."""
        items = self.images.__getitems__(indices)  # type: ignore[attr-defined]
        waiting = iter(indices)
        drawn = []
        for item in items:
            # `on_bad_image=skip` leaves items out, and the others keep their index; `replace` changes the index and
            # leaves nothing out.
            index = next(i for i in waiting if len(items) == len(indices) or int(i) % len(self) == int(item["index"]))
            drawn.append({**item, "draw": getattr(index, "draw", int(index))})
        return drawn


def grey(image: Tensor) -> Tensor:
    """Luma of Rec. 601, as Pillow's mode ``L``: (B, 3, H, W) -> (B, 1, H, W)."""
    return (image * image.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)


def reduce(image: Tensor, factor: int) -> Tensor:
    """What is left of (B, 3, H, W) in [-1, 1] at 1/factor of its size, brought back to its size."""
    height, width = image.shape[-2:]
    size = max(1, height // factor), max(1, width // factor)
    small = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)  # it overshoots; files cannot
    return F.interpolate(small, (height, width), mode="bilinear")


def palette(classes: int) -> Tensor:
    """A colour for each class, (C, 3) in [-1, 1]: points of the coarsest grid in the colour cube, black first."""
    levels = max(2, next(n for n in range(1, classes + 1) if n**3 >= classes))
    return torch.cartesian_prod(*[torch.linspace(-1, 1, levels)] * 3)[:classes]


def _one(random: np.random.Generator, choices: Sequence[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def _mirror(maps: Tensor, rows: Tensor) -> Tensor:
    return torch.where(rows.to(maps.device).view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    key = np.array([seed, stream], dtype=np.uint64)
    # The third word counts up as numbers are drawn; whole images of noise fit below the second.
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, number, 0], dtype=np.uint64)))
