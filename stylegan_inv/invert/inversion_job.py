"""Carries out an inversion: this process's parts, and the result once all parts are finished."""

from __future__ import annotations

import os
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

from stylegan_inv.data.images.image_files import left_out_lines, name_list
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import WARNINGS
from stylegan_inv.invert.inputs import IndexedInputs, InputBatch, collate
from stylegan_inv.invert.inversion_result import Parts, Result, assemble
from stylegan_inv.invert.optimization_progress import OptimizationProgress
from stylegan_inv.invert.output_folder import SKIPPED, image_names, remove_previous_result, stored_command
from stylegan_inv.invert.parts import PartWriter, split_into_parts
from stylegan_inv.latents.saved_codes import RECONSTRUCTIONS
from stylegan_inv.optim.optimization_state import Monitor
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.runtime.run_folder import is_named
from stylegan_inv.utils.parent_process import worker_ending_with

if TYPE_CHECKING:  # Lightning takes seconds to import; errors in the input are reported before
    from stylegan_inv.data.tasks.base import Task
    from stylegan_inv.methods.common.base import Inversion, InversionMethod
    from stylegan_inv.methods.common.per_image import PerImageMethod


@dataclass
class Job:
    """Everything that is checked and loaded before the first file is written.

    Attributes:
        run: The run of the method; None for a method without training.
        method: The method, in evaluation mode and on its device.
        inputs: All inputs.
        output: Output folder.
        task: Turns an image into the input of a translation method; None for other methods.
        variants: Functions that return further outputs for the same inputs, see ``variants=``.
        unfinished: The parts that are finished.
        ranks: Rank of this process.
        own: Number -> batches of the parts that are left to this process.
    """

    run: str | None
    method: InversionMethod
    inputs: IndexedInputs
    output: Path
    task: Task | None
    variants: list[Callable[[Tensor], Inversion]]
    unfinished: ResumableJob
    ranks: Ranks
    own: dict[int, list[range]]

    @property
    def compares(self) -> bool:
        """Whether a reconstruction is compared with its input."""
        return self.task is None and self.inputs.reference is None and self.inputs.mask is None

    def classes(self, indices: list[int]) -> Tensor | None:
        """Returns the classes (B,) of some images, where each image has its own."""
        return None if self.inputs.classes is None else self.inputs.classes[indices].to(self.method.device)

    @property
    def own_images(self) -> int:
        """Number of images that are left to this process."""
        return sum(len(batch) for batches in self.own.values() for batch in batches)


def is_finished(output: Path, unfinished: ResumableJob) -> bool:
    """Returns whether the output folder holds the complete result of this command."""
    return not unfinished.has_begun() and stored_command(output) == unfinished.key


def carry_out(cfg: DictConfig, job: Job) -> None:
    """Inverts this process's parts, and writes the result if all other parts are finished."""
    from stylegan_inv.methods.common.per_image import PerImageMethod

    metadata = {
        "generator_hash": str(job.method.generator.source_hash),
        "method": type(job.method).__name__,
        "run": "" if job.run is None else job.run if is_named(job.run) else str(Path(job.run).resolve()),
    }
    if job.method.generator.mapping.classes is not None:
        metadata["class"] = str(job.method.generator.mapping.classes)
    names = job.inputs.names
    images = [f"{RECONSTRUCTIONS}/{name}" for name in image_names(names)]
    # One of several processes may start when the others have finished; a single process was told to start again.
    if not job.unfinished.begin(
        remove_previous_result, lambda: job.ranks.world_size > 1 and is_finished(job.output, job.unfinished)
    ):
        return
    work = _batches(cfg, job, lambda: PartWriter(job.output, images, metadata, job.compares))
    if isinstance(job.method, PerImageMethod):
        count = _optimize(cfg, job, job.method, work)
    else:
        count = _encode(job, work)
    if job.ranks.world_size > 1:
        print(f"{job.ranks}{count} images inverted", flush=True)

    files = [job.unfinished.part_file(number) for number in range(len(split_into_parts(len(names), cfg.batch_size)))]
    left_out = job.inputs.images.left_out
    parts = Parts(files, job.unfinished.key, names, images, job.inputs.check, str(cfg.input), left_out)

    def write_result() -> None:
        entries = {**metadata, "command": job.unfinished.key}
        _report(assemble(job.output, parts, entries, cfg.shard_images), job)

    finished = job.unfinished.finish(files, write_result)
    if not finished and job.ranks.world_size == 1:
        raise UserError(f"{job.output}: parts of the result have been removed while this command worked; repeat it")
    if not finished and not job.ranks.starts_others:
        print(f"{job.ranks}other ranks are still working; the last one writes the codes", flush=True)


@dataclass
class _Batch:
    """A batch to invert.

    Attributes:
        number: Number of the batch among all batches.
        inputs: Its inputs, on the device of the method.
        writer: Receives its results.
    """

    number: int
    inputs: InputBatch
    writer: PartWriter


def _batches(cfg: DictConfig, job: Job, new_writer: Callable[[], PartWriter]) -> Iterator[_Batch]:
    """Yields the batches that are left to this process; a part is saved when all of its batches are finished."""
    batches = [list(batch) for part in job.own.values() for batch in part]
    start = worker_ending_with(os.getpid())
    loader = iter(
        DataLoader(
            job.inputs,
            batch_sampler=batches,
            num_workers=cfg.num_workers,
            collate_fn=collate,
            worker_init_fn=start,
        )
    )
    for number, part in job.own.items():
        writer, first = new_writer(), part[0].start // cfg.batch_size
        for batch_number in range(first, first + len(part)):
            inputs: InputBatch = next(loader)
            writer.result.errors += inputs.errors
            writer.result.findings += inputs.findings
            if inputs.indices:
                torch.manual_seed(cfg.seed + batch_number)  # the same in whichever process
                inputs.tensors = {name: tensor.to(job.method.device) for name, tensor in inputs.tensors.items()}
                yield _Batch(batch_number, inputs, writer)
        if is_finished(job.output, job.unfinished):  # by another process of the same command
            return
        job.unfinished.check_begun()
        writer.save(job.unfinished.part_file(number), job.unfinished.key)
        for batch_number in range(first, first + len(part)):
            job.unfinished.remove_batch(batch_number)


def _encode(job: Job, work: Iterator[_Batch]) -> int:
    """Inverts with a method that takes images alone; returns the number of images."""
    console, count = Console(), 0
    hidden = not console.is_terminal or job.ranks.rank > 0
    for batch in track(work, "inverting", total=sum(map(len, job.own.values())), console=console, disable=hidden):
        # Without torch.no_grad(), as a method may optimise codes; the weights of the method require no gradients.
        images = batch.inputs.tensors["image"]
        source = images if job.task is None else job.task.read(images)
        with job.method.with_classes(job.classes(batch.inputs.indices)):
            variants = [variant(source).image for variant in job.variants]
            inversion = job.method.invert(source)
        batch.writer.add(batch.inputs.indices, images, inversion, variants)
        count += len(images)
    return count


def _optimize(cfg: DictConfig, job: Job, method: PerImageMethod, work: Iterator[_Batch]) -> int:
    """Inverts with a method whose state is saved, so that it can be interrupted; returns the number of images."""
    count = 0
    with OptimizationProgress(job.own_images) as progress:
        for batch in work:
            key = f"{job.unfinished.key} {batch.number}"
            state_file = job.unfinished.batch_file(batch.number)
            monitor = Monitor(state_file, key, cfg.save_every_seconds, progress.report)
            others = dict(batch.inputs.tensors)
            images = others.pop("image")
            with method.with_classes(job.classes(batch.inputs.indices)):
                found = method.optimize(
                    images, mask=others.get("mask"), reference=others.get("reference"), monitor=monitor
                )
            batch.writer.add(batch.inputs.indices, images, found, others=others, curves=found.curves)
            progress.advance(len(images))
            count += len(images)
    return count


def _report(result: Result, job: Job) -> None:
    error = f", mean squared error {result.mean_squared_error:.4f}" if job.compares else ""
    print(f"{result.count} images inverted{error}")
    if result.unreadable:
        total = result.count + len(result.unreadable)
        print(
            f"{len(result.unreadable)} of {total} files cannot be read and are skipped: {name_list(result.unreadable)}"
        )
    for line in left_out_lines(job.inputs.images.left_out):
        print(line)
    if result.not_finite:
        names = name_list(result.not_finite)
        print(f"{len(result.not_finite)} images have codes or reconstructions that are not finite: {names}")
    for line in result.warnings:
        print(line)
    output = job.output
    print(f"{'codes:':<12}{_first_to_last(result.codes)}")
    print(f"{'images:':<12}{output / RECONSTRUCTIONS}")
    for label, file in {
        "losses:": output / "losses.png",
        "skipped:": output / SKIPPED,
        "warnings:": output / WARNINGS,
    }.items():
        if file.is_file():
            print(f"{label:<12}{file}")
    print(f"{'sheet:':<12}{_first_to_last(result.sheets)}")
    print(f"{'output:':<12}{output}")


def _first_to_last(files: list[Path]) -> str:
    return str(files[0]) if len(files) == 1 else f"{files[0]} ... {files[-1].name}"
