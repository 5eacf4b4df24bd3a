"""An inversion that is checked and ready: this process's share of the images, and the result when all have theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.invert.chunks import PartWriter, parts_of
from stylegan_inv.invert.inputs import NumberedInputs, collate
from stylegan_inv.invert.inversion_result import Result, put_together
from stylegan_inv.invert.optimization_progress import DescentProgress
from stylegan_inv.latents.saved_codes import LEFT_OUT, RECONSTRUCTIONS, command_of, picture_names, remove_earlier
from stylegan_inv.runtime.shares import Ranks
from stylegan_inv.runtime.unfinished import Unfinished

if TYPE_CHECKING:  # Lightning takes seconds to import; bad input is to be answered before
    from stylegan_inv.data.tasks.base import Task
    from stylegan_inv.methods.common.base import Inversion, InversionMethod


@dataclass
class Job:
    """Everything that is checked and loaded before the first file is written.

    Attributes:
        method: In evaluation mode, on its device.
        inputs: All images.
        output: Folder of the result.
        task: What the method sees instead of the images.
        variants: See ``variants=``.
        unfinished: What was done before.
        ranks: Which process this is.
        own: The parts that are left to this process: number -> batches.
    """

    method: InversionMethod
    inputs: NumberedInputs
    output: Path
    task: Task | None
    variants: list[Callable[[Tensor], Inversion]]
    unfinished: Unfinished
    ranks: Ranks
    own: dict[int, list[range]]


def finished(output: Path, unfinished: Unfinished) -> bool:
    """Whether the result of this very command lies in the output folder, and is whole."""
    return not unfinished.exists() and command_of(output) == unfinished.key


def carry_out(cfg: DictConfig, job: Job) -> None:
    """Invert this process's share, and write the result if it was the last one."""
    metadata = {
        "generator_hash": str(job.method.generator.source_hash),
        "method": type(job.method).__name__,
        "run": "" if cfg.run is None else str(Path(cfg.run).resolve()),
    }
    names = job.inputs.names
    pictures = [f"{RECONSTRUCTIONS}/{name}" for name in picture_names(names)]
    # One of many processes may begin when the others are done; a single one has been told to begin anew.
    if not job.unfinished.begin(remove_earlier, lambda: job.ranks.count > 1 and finished(job.output, job.unfinished)):
        return
    compare = job.task is None and cfg.second is None and cfg.mask is None
    work = _work(cfg, job, lambda: PartWriter(job.output, pictures, metadata, compare))
    done = _encode(job, work) if job.method.trains else _optimise(cfg, job, work)
    if job.ranks.count > 1:
        print(f"{job.ranks}{done} images inverted", flush=True)

    def write_result() -> None:
        said = {**metadata, "command": job.unfinished.key}
        _report(put_together(job.output, files, names, pictures, said, cfg.shard_images), job.output, compare)

    files = [job.unfinished.part(number) for number in range(len(parts_of(len(names), cfg.batch_size)))]
    if not job.unfinished.finish(files, write_result) and not job.ranks.starts:
        print(f"{job.ranks}others are at work; the one that ends last writes the codes", flush=True)


def _report(result: Result, output: Path, compare: bool) -> None:
    error = f", mean squared error {result.mean_squared_error:.4f}" if compare else ""
    print(f"{result.count} images inverted{error}")
    if result.unreadable:
        total = result.count + len(result.unreadable)
        bad = name_list(result.unreadable)
        print(f"{len(result.unreadable)} of {total} files cannot be read and are left out: {bad}")
    if result.not_finite:
        odd = name_list(result.not_finite)
        print(f"{len(result.not_finite)} images have codes or pictures that are not finite: {odd}")
    places: dict[str, str | Path] = {
        "codes": _from_to(result.codes),
        "images": output / RECONSTRUCTIONS,
        "losses": output / "losses.png",
        "left out": output / LEFT_OUT,
        "picture": _from_to(result.sheets),
        "output": output,
    }
    for what, path in places.items():
        if what not in ("losses", "left out") or Path(path).is_file():
            print(f"{what + ':':<12}{path}")


def _from_to(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} ... {files[-1].name}"


@dataclass
class _Batch:
    """Images to invert: their part, their numbers, the batch's number among all, and what the method is given."""

    part: PartWriter
    index: list[int]
    number: int
    given: dict[str, Tensor]


def _work(cfg: DictConfig, job: Job, new_part: Callable[[], PartWriter]) -> Iterator[_Batch]:
    """The batches that are left to this process; a part is kept when all of its batches have been dealt with."""
    batches = [list(batch) for part_batches in job.own.values() for batch in part_batches]
    loader = iter(DataLoader(job.inputs, batch_sampler=batches, num_workers=cfg.num_workers, collate_fn=collate))
    for number, part_batches in job.own.items():
        part, first = new_part(), part_batches[0].start // cfg.batch_size
        for batch_number in range(first, first + len(part_batches)):
            index, given, unreadable = next(loader)
            part.leave_out(unreadable)
            if index:
                torch.manual_seed(cfg.seed + batch_number)  # the same whichever process does it
                given = {name: tensor.to(job.method.device) for name, tensor in given.items()}
                yield _Batch(part, index, batch_number, given)
        part.save(job.unfinished.part(number))
        for batch_number in range(first, first + len(part_batches)):
            job.unfinished.file(batch_number).unlink(missing_ok=True)


def _encode(job: Job, work: Iterator[_Batch]) -> int:
    """With a trained method; how many images it was."""
    console, images = Console(), 0
    total = sum(map(len, job.own.values()))
    quiet = not console.is_terminal or job.ranks.rank > 0
    for batch in track(work, "inverting", total=total, console=console, disable=quiet):
        # No torch.no_grad() here: methods that optimise each image need gradients. The method's weights need none.
        given = batch.given["image"]
        source = given if job.task is None else job.task.read(given)
        variants = [variant(source).image for variant in job.variants]
        batch.part.add(batch.index, given, job.method.invert(source), variants)
        images += len(batch.index)
    return images


def _optimise(cfg: DictConfig, job: Job, work: Iterator[_Batch]) -> int:
    """With a method that optimises each image; its state is kept, so that this can be killed and continued."""
    from stylegan_inv.optim.descent import Watch

    images = 0
    with DescentProgress(sum(len(batch) for batches in job.own.values() for batch in batches)) as progress:
        for batch in work:
            file, key = job.unfinished.file(batch.number), f"{job.unfinished.key} {batch.number}"
            watch = Watch(file, key, cfg.save_every_seconds, progress.report)
            given = batch.given.pop("image")
            found = job.method.invert(given, watch=watch, **batch.given)  # type: ignore[call-arg]
            batch.part.add(batch.index, given, found, extra=batch.given)
            progress.advance(len(batch.index))
            images += len(batch.index)
    return images
