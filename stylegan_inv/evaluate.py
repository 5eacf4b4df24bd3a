"""Score a method, or pictures: ``python -m stylegan_inv.evaluate run=outputs/restyle/... dataset=celeba_hq``.

Every image of a split is inverted, compared with its original by every metric, and counted. Leaves ``metrics.json``,
``table.md`` and one row for each image; the protocol stands above the table. ``images=... targets=...`` scores pictures
that any other tool has written in the same way.
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

import stylegan_inv
from stylegan_inv.config import entry_point, instantiate, plain
from stylegan_inv.data.faces import FacesDataModule
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.evaluation import Scores
from stylegan_inv.runtime.evaluation_job import Job, MethodJob, PicturesJob, build_metrics
from stylegan_inv.runtime.evaluation_protocol import describe_method, describe_pictures
from stylegan_inv.runtime.evaluation_report import METRICS, TABLE, check_per_image, write_per_image, write_report
from stylegan_inv.runtime.evaluation_sources import check_options, dataset_config, picture_folders
from stylegan_inv.runtime.inversions import check_output


def prepare(cfg: DictConfig) -> Job:
    """Check every input and load what is to be scored.

    Raises:
        UserError: Bad options, missing files, a run that does not load, a data set that is not there.
    """
    check_options(cfg)
    check_per_image(cfg.per_image)
    device = device_named(cfg.device)
    torch.manual_seed(cfg.seed)
    return _pictures_job(cfg, device) if cfg.run is None else _method_job(cfg, device)


@entry_point("evaluate", prepare)
def main(cfg: DictConfig, job: Job) -> None:
    """Score all images, then write and print the results."""
    console = Console()
    scores = Scores(job.metrics, cfg.quantise, job.device)
    scores.add_all(track(job.comparisons(), "evaluating", console=console, disable=not console.is_terminal))
    index, columns = scores.rows()
    report = job.report(scores, columns)

    job.output.mkdir(parents=True, exist_ok=True)
    write_report(report, job.output)
    write_per_image(job.output / cfg.per_image, index, [scores.names[i] for i in index], columns)
    report.print()
    for what, name in {"metrics": METRICS, "table": TABLE, "images": cfg.per_image}.items():
        print(f"{what + ':':<12}{job.output / name}")


def _method_job(cfg: DictConfig, device: torch.device) -> Job:
    run = Path(cfg.run)
    choice = _choice("dataset")
    node = dataset_config(run, cfg.get("dataset"), choice, cfg.resolution)
    data = instantiate(node)
    data.setup("test" if cfg.split == "test" else "validate")
    name = choice or type(data).__name__.removesuffix("DataModule").lower()
    run_dir = run if run.is_dir() else run.parent.parent
    folder = run_dir if (run_dir / "config.yaml").is_file() else Path("outputs") / run.stem
    output = folder / "evaluation" / name if cfg.output is None else Path(cfg.output)
    check_output(output, cfg.overwrite)
    made = _metrics(cfg, "evaluation" if isinstance(data, FacesDataModule) else "evaluation_photos")
    method = stylegan_inv.load_inverter(cfg.run, device)
    protocol = describe_method(method, run, node, cfg)
    return MethodJob(build_metrics(made, method.generator), device, output, plain(cfg), protocol, method, data)


def _pictures_job(cfg: DictConfig, device: torch.device) -> Job:
    images, targets = Path(cfg.images), Path(cfg.targets)
    masks = None if cfg.masks is None else Path(cfg.masks)
    pictures = picture_folders(images, targets, masks, cfg.resolution, cfg.on_missing)
    output = images.absolute().with_name(f"{images.absolute().name}_evaluation") if cfg.output is None else cfg.output
    check_output(Path(output), cfg.overwrite)
    made = _metrics(cfg, "evaluation_photos")
    protocol = describe_pictures(pictures, images, targets, cfg)
    return PicturesJob(build_metrics(made, None), device, Path(output), plain(cfg), protocol, pictures)


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
