"""Score a method, or pictures: ``python -m stylegan_inv.evaluate run=outputs/restyle/... dataset=celeba_hq``.

Every image of a split is inverted, compared with its original by every metric, and counted. Leaves ``metrics.json``,
``table.md`` and one row for each image; the protocol stands above the table. ``images=... targets=...`` scores pictures
that any other tool has written in the same way. Many processes share the images (``devices=4``, ``torchrun``,
``srun``); the figures are those of a single one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from stylegan_inv.config import entry_point, instantiate, plain, same_command
from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.evaluate.evaluation_data import dataset_config, run_folder, trained_with
from stylegan_inv.evaluate.evaluation_job import Job, MethodJob, PicturesJob, build_metrics, consistency_metrics
from stylegan_inv.evaluate.image_pairs import picture_folders
from stylegan_inv.evaluate.options import check_options
from stylegan_inv.evaluate.partial_scores import merge_parts, part_file, save_part
from stylegan_inv.evaluate.protocol import describe_method, describe_pictures
from stylegan_inv.evaluate.score_table import METRICS, TABLE, check_per_image, write_per_image, write_report
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.ranks import die_with_parent
from stylegan_inv.runtime.shares import Ranks
from stylegan_inv.runtime.unfinished import Unfinished, describe_files


def prepare(cfg: DictConfig) -> Job:
    """Check every input and load what is to be scored.

    Raises:
        UserError: Bad options, missing files, a run that does not load, a data set that is not there.
    """
    ranks = Ranks.of(cfg.devices)
    with ranks.named():
        check_options(cfg)
        check_per_image(cfg.per_image)
        torch.manual_seed(cfg.seed)
        return _pictures_job(cfg, ranks) if cfg.run is None else _method_job(cfg, ranks)


@entry_point("evaluate", prepare)
def main(cfg: DictConfig, job: Job) -> None:
    """Score all images, then write and print the results."""
    die_with_parent()
    with job.ranks.with_others(same_command("stylegan_inv.evaluate")), job.ranks.named():
        if job.ranks.count == 1:
            _write(cfg, job, _score(job), job.available()[1])
            return job.unfinished.end()
        _share(cfg, job)


def _share(cfg: DictConfig, job: Job) -> None:
    """One of several processes: score its share, and merge all if it was the last one."""
    if not job.unfinished.begin(lambda folder: None, lambda: False):
        return
    files = [part_file(job.unfinished.folder, rank, job.ranks.count) for rank in range(job.ranks.count)]
    if not files[job.ranks.rank].is_file():
        scores = _score(job)
        save_part(files[job.ranks.rank], scores, job.available()[1])
        print(f"{job.ranks}{len(scores.names)} images scored", flush=True)

    def merge() -> None:
        merged = Scores(job.metrics, cfg.quantise, job.device)
        left_out = merge_parts(files, merged)
        _write(cfg, job, merged, left_out)

    if not job.unfinished.finish(files, merge) and not job.ranks.starts:
        print(f"{job.ranks}others are at work; the one that ends last writes the report", flush=True)


def _score(job: Job) -> Scores:
    console = Console()
    scores = Scores(job.metrics, job.options["quantise"], job.device)
    quiet = not console.is_terminal or job.ranks.rank > 0
    return scores.add_all(track(job.comparisons(), "evaluating", console=console, disable=quiet))


def _write(cfg: DictConfig, job: Job, scores: Scores, left_out: list[str]) -> None:
    scores.check()
    index, columns = scores.rows()
    report = job.report(scores, columns, left_out)

    job.output.mkdir(parents=True, exist_ok=True)
    write_report(report, job.output)
    write_per_image(job.output / cfg.per_image, index, [scores.names[i] for i in index], columns)
    report.print()
    for what, name in {"metrics": METRICS, "table": TABLE, "images": cfg.per_image}.items():
        print(f"{what + ':':<12}{job.output / name}")


def _method_job(cfg: DictConfig, ranks: Ranks) -> Job:
    device = device_named(cfg.device, ranks.local)
    run, choice = Path(cfg.run), _choice("dataset")
    own = trained_with(run)
    node = dataset_config(own, cfg.get("dataset"), choice is not None)
    name = choice or node._target_.rpartition(".")[2].removesuffix("DataModule").lower()
    output = run_folder(run) / "evaluation" / name if cfg.output is None else Path(cfg.output)
    unfinished = _unfinished(cfg, output, node)
    method: Any = load_inverter(cfg.run, device)
    # An explicit size, else what the method was trained with, else what its encoder takes.
    asked = any(text.lstrip("+").startswith("dataset.resolution=") for text in HydraConfig.get().overrides.task)
    trained = None if own is None else own.get("resolution")
    takes = getattr(getattr(method, "encoder", None), "resolution", None)
    node.resolution = cfg.resolution or (node.resolution if asked else trained or takes or node.resolution)
    data = instantiate(node)
    data.setup("test" if cfg.split == "test" else "validate")
    made = _metrics(cfg, "evaluation" if isinstance(data, SynthFacesDataModule) else "evaluation_photos")
    metrics = build_metrics(made, method.generator)
    metrics |= consistency_metrics(method, cfg.lec.directions, cfg.lec.strength, node.resolution)
    protocol = describe_method(method, run, node, cfg)
    return MethodJob(metrics, device, output, plain(cfg), protocol, ranks, unfinished, method, data)


def _pictures_job(cfg: DictConfig, ranks: Ranks) -> Job:
    device = device_named(cfg.device, ranks.local)
    images, targets = Path(cfg.images), Path(cfg.targets)
    masks = None if cfg.masks is None else Path(cfg.masks)
    pictures = picture_folders(images, targets, masks, cfg.resolution, cfg.on_missing)
    beside = images.absolute().with_name(f"{images.absolute().name}_evaluation")
    output = beside if cfg.output is None else Path(cfg.output)
    unfinished = _unfinished(cfg, output, [pictures.names, describe_files(pictures.images)])
    made = _metrics(cfg, "evaluation_photos")
    protocol = describe_pictures(pictures, images, targets, cfg)
    return PicturesJob(build_metrics(made, None), device, output, plain(cfg), protocol, ranks, unfinished, pictures)


def _unfinished(cfg: DictConfig, output: Path, data: Any) -> Unfinished:
    """What was kept of this command, if it can be written to; raises UserError if not."""
    # What does not change a figure, and what is said by `data`.
    no_matter = ("device", "devices", "output", "overwrite", "per_image", "speed", "weights", "dataset", "bootstrap")
    options = {str(key): cfg[key] for key in cfg if key not in no_matter}
    settings = OmegaConf.to_container(OmegaConf.create({**options, "data": data}), resolve=True)
    run = None if cfg.run is None else Path(cfg.run)
    file = run if run is None or run.is_file() else run / "checkpoints" / "last.ckpt"
    checkpoint = describe_files([file]) if file is not None and file.is_file() else None
    unfinished = Unfinished(output, {"settings": settings, "checkpoint": checkpoint})
    unfinished.check(cfg.overwrite)
    return unfinished


def _metrics(cfg: DictConfig, default: str) -> dict[str, Any]:
    """The chosen list, or the default one with what was added to it."""
    given = cfg.get("metrics") or {}
    if _choice("metrics") is None:
        given = OmegaConf.merge(compose(f"metrics/{default}").metrics, given)
    return {str(name): instantiate(node) for name, node in given.items() if node}


def _choice(group: str) -> str | None:
    return HydraConfig.get().runtime.choices.get(group)


if __name__ == "__main__":
    main()
