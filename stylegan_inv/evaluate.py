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
from stylegan_inv.runtime.evaluation_data import dataset_config, run_folder, trained_with
from stylegan_inv.runtime.evaluation_job import Job, MethodJob, PicturesJob, build_metrics, consistency_metrics
from stylegan_inv.runtime.evaluation_options import check_options
from stylegan_inv.runtime.evaluation_pictures import picture_folders
from stylegan_inv.runtime.evaluation_protocol import describe_method, describe_pictures
from stylegan_inv.runtime.evaluation_report import METRICS, TABLE, check_per_image, write_per_image, write_report
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
    run, choice = Path(cfg.run), _choice("dataset")
    own = trained_with(run)
    node = dataset_config(own, cfg.get("dataset"), choice is not None)
    name = choice or node._target_.rpartition(".")[2].removesuffix("DataModule").lower()
    output = run_folder(run) / "evaluation" / name if cfg.output is None else Path(cfg.output)
    check_output(output, cfg.overwrite)
    method: Any = stylegan_inv.load_inverter(cfg.run, device)
    # An explicit size, else what the method was trained with, else what its encoder takes.
    asked = any(text.lstrip("+").startswith("dataset.resolution=") for text in HydraConfig.get().overrides.task)
    trained = None if own is None else own.get("resolution")
    takes = getattr(getattr(method, "encoder", None), "resolution", None)
    node.resolution = cfg.resolution or (node.resolution if asked else trained or takes or node.resolution)
    data = instantiate(node)
    data.setup("test" if cfg.split == "test" else "validate")
    made = _metrics(cfg, "evaluation" if isinstance(data, FacesDataModule) else "evaluation_photos")
    metrics = build_metrics(made, method.generator)
    metrics |= consistency_metrics(method, cfg.lec.directions, cfg.lec.strength, node.resolution)
    return MethodJob(metrics, device, output, plain(cfg), describe_method(method, run, node, cfg), method, data)


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
