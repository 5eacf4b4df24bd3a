"""Evaluates a method or image files: ``python -m stylegan_inv.evaluate run=outputs/restyle/... dataset=celeba_hq``.

Inverts every image of a split and compares the reconstruction with the image by every metric. Writes ``metrics.json``,
``table.md`` and one row per image; the protocol is printed above the table. ``images=... targets=...`` scores the image
files of any other tool in the same way. Several processes may share the images (``devices=4``, ``torchrun`` or
``srun``); the results are those of a single process.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.progress import track

from stylegan_inv.config import chosen_option, entry_point, instantiate, plain, same_command
from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.images.image_files import left_out_lines
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.evaluation_data import evaluation_dataset, used_options
from stylegan_inv.evaluate.evaluation_job import (
    EvaluationJob,
    ImagePairsJob,
    MethodJob,
    build_metrics,
    consistency_metrics,
)
from stylegan_inv.evaluate.image_pairs import match_folders
from stylegan_inv.evaluate.options import check_options
from stylegan_inv.evaluate.partial_scores import merge_parts, part_files, save_part
from stylegan_inv.evaluate.protocol import describe_method, describe_pairs
from stylegan_inv.evaluate.score_table import METRICS, TABLE, write_per_image
from stylegan_inv.evaluate.scoring import Scores
from stylegan_inv.loading import dataset_of, load_inverter
from stylegan_inv.methods.common.domain_parts import run_parts
from stylegan_inv.methods.common.fit_check import check_images
from stylegan_inv.runtime.device import device_named
from stylegan_inv.runtime.rank_processes import launched, rank_in_errors
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.runtime.resumable_job import ResumableJob, file_identities
from stylegan_inv.runtime.run_folder import RunFolder, checkpoint_of, results_folder
from stylegan_inv.trust.bounded_memory import bounded_memory
from stylegan_inv.trust.config_check import checked_trust
from stylegan_inv.utils.domains import check_domains, domain_of
from stylegan_inv.utils.files import check_links

#: Options that do not affect the scores; the data set is identified by its resolved config.
_IRRELEVANT = (
    *("device", "devices", "output", "overwrite", "per_image", "speed", "weights", "dataset", "bootstrap"),
    *("any_domain", "trust"),
)

#: Words of the command line that choose metrics.
_METRIC_OVERRIDE = re.compile(r"[+~]*(metrics\b|similarity=|perceptual=)")

#: Number of images whose size and channels are checked; some of them may be unreadable.
_CHECKED_IMAGES = 4


def prepare(cfg: DictConfig) -> EvaluationJob:
    """Checks every input and loads what is evaluated.

    Raises:
        UserError: Invalid options, missing files, a run that cannot be loaded, or a data set that does not exist.
    """
    ranks = Ranks.for_devices(cfg.devices)
    with rank_in_errors(ranks):
        check_options(cfg)
        torch.manual_seed(cfg.seed)
        return _pairs_job(cfg, ranks) if cfg.run is None else _method_job(cfg, ranks)


@entry_point("evaluate", prepare)
def main(cfg: DictConfig, job: EvaluationJob) -> None:
    """Scores all images, then writes and prints the results."""
    with launched(job.ranks, same_command("stylegan_inv.evaluate")), rank_in_errors(job.ranks):
        if job.ranks.world_size > 1:
            return _score_shard(cfg, job)
        _write(cfg, job, _score(job), job.left_out())
        job.progress.remove()


def _score_shard(cfg: DictConfig, job: EvaluationJob) -> None:
    """Scores the shard of this rank, and merges all scores if this is the last rank to finish."""
    if not job.progress.begin(lambda folder: None, lambda: False):
        return
    files = part_files(job.progress.folder, job.ranks)
    own = files[job.ranks.rank]
    if not own.is_file():
        scores = _score(job)
        job.progress.check_begun()
        save_part(own, scores, job.left_out())
        print(f"{job.ranks}{len(scores.names)} images scored", flush=True)

    def merge() -> None:
        merged = Scores(job.metrics, cfg.quantise, job.device)
        left_out = merge_parts(files, merged)
        _write(cfg, job, merged, left_out)

    if not job.progress.finish(files, merge) and not job.ranks.starts_others:
        print(f"{job.ranks}other ranks are still working; the last one writes the results", flush=True)


def _score(job: EvaluationJob) -> Scores:
    console = Console()
    scores = Scores(job.metrics, job.options["quantise"], job.device)
    hidden = not console.is_terminal or not job.ranks.is_first
    return scores.add_all(track(job.comparisons(), "evaluating", console=console, disable=hidden))


def _write(cfg: DictConfig, job: EvaluationJob, scores: Scores, left_out: list[str]) -> None:
    scores.check()
    index, columns = scores.rows()
    results = job.results(scores, columns, left_out)
    job.output.mkdir(parents=True, exist_ok=True)
    results.write(job.output)
    names, values = [scores.names[i] for i in index], {str(column): value for column, value in columns.items()}
    write_per_image(job.output / cfg.per_image, index, names, values)
    results.print()
    for what, name in {"metrics": METRICS, "table": TABLE, "images": cfg.per_image}.items():
        print(f"{what + ':':<12}{job.output / name}")


def _method_job(cfg: DictConfig, ranks: Ranks) -> EvaluationJob:
    device = device_named(cfg.device, ranks.local_rank)
    run, choice = Path(cfg.run), chosen_option("dataset")
    folder = RunFolder.of(run)
    trust = checked_trust(cfg.trust)
    own = dataset_of(run, trust)
    node = evaluation_dataset(own, cfg.get("dataset"), choice is not None)
    if folder is not None and own is not None:
        folder.check_part(used_options(own, cfg.get("dataset"), choice is not None), "dataset")
    name = choice or node._target_.rpartition(".")[2].removesuffix("DataModule").lower()
    output = results_folder(run, "evaluation", name) if cfg.output is None else Path(str(cfg.output))
    check_links(output)  # `_progress` checks all; but before the data and the method are built
    method: Any = load_inverter(cfg.run, device, trust=trust)
    if cfg["class"] is not None:
        method.set_class(cfg["class"])
    given = any(text.lstrip("+").startswith("dataset.resolution=") for text in HydraConfig.get().overrides.task)
    node.resolution = cfg.resolution or (node.resolution if given else method.input_size)
    with bounded_memory():
        data = instantiate(node)
    if not isinstance(data, ImageDataModule):
        raise UserError(f"dataset: got a {type(data).__name__}, expected a DataModule of stylegan_inv.data")
    data.setup("test" if cfg.split == "test" else "validate")
    dataset = data.get(cfg.split)
    images = dataset.identity() if isinstance(dataset, ImageDataset) else None
    progress = _progress(cfg, output, [plain(node), images])
    data.grey = method.generator.grey
    if method.generator.class_per_image:
        data.use_classes(method.generator.c_dim, (cfg.split,))
    if (batch := data.first_batch(cfg.split, _CHECKED_IMAGES)) is not None:
        check_images(method, batch["image"].shape[-1], method.source(batch).shape[1])
    what, domain = f"the data (dataset={name}) are", domain_of(data)
    check_domains(what, domain, run_parts(method), cfg.any_domain)  # before metrics download their networks
    metrics = build_metrics(_metrics(domain), method.generator)
    check_domains(what, domain, {f"metrics.{key}": metric for key, metric in metrics.items()}, cfg.any_domain)
    lec = cfg.lec
    metrics |= consistency_metrics(method, lec.directions, lec.strength, node.resolution, cfg.any_domain)
    protocol = describe_method(method, run, node, cfg)
    return MethodJob(metrics, device, output, plain(cfg), protocol, ranks, progress, method, data)


def _pairs_job(cfg: DictConfig, ranks: Ranks) -> EvaluationJob:
    device = device_named(cfg.device, ranks.local_rank)
    images, targets = Path(cfg.images), Path(cfg.targets)
    masks = None if cfg.masks is None else Path(cfg.masks)
    pairs = match_folders(images, targets, masks, cfg.resolution, cfg.on_missing)
    for line in left_out_lines(pairs.other_formats) if ranks.is_first else ():
        print(line)
    sibling = images.absolute().with_name(f"{images.absolute().name}_evaluation")
    output = sibling if cfg.output is None else Path(str(cfg.output))
    files = [file_identities(files) for files in (pairs.images, pairs.targets, pairs.masks)]
    progress = _progress(cfg, output, [pairs.names, files])
    domain = OmegaConf.select(cfg, "domain.name")
    metrics = build_metrics(_metrics(domain), None)
    parts = {f"metrics.{name}": metric for name, metric in metrics.items()}
    check_domains("the images are", domain, parts, cfg.any_domain)
    protocol = describe_pairs(pairs, images, targets, cfg)
    return ImagePairsJob(metrics, device, output, plain(cfg), protocol, ranks, progress, pairs)


def _progress(cfg: DictConfig, output: Path, data: Any) -> ResumableJob:
    """Returns the parts that earlier processes of this command have written, after checking the output folder."""
    options = {str(key): cfg[key] for key in cfg if key not in _IRRELEVANT}
    settings = OmegaConf.to_container(OmegaConf.create(options), resolve=True)
    file = None if cfg.run is None else checkpoint_of(cfg.run)
    checkpoint = file_identities([file]) if file is not None and file.is_file() else None
    progress = ResumableJob(output, {"settings": settings, "data": data, "checkpoint": checkpoint})
    progress.check(cfg.overwrite)
    return progress


def _metrics(domain: str | None) -> dict[str, Any]:
    """Returns the chosen metrics in a domain, which is known only when the data set is."""
    chosen = [text for text in HydraConfig.get().overrides.task if _METRIC_OVERRIDE.match(text)]
    metrics = compose("evaluate", [*([] if domain is None else [f"domain={domain}"]), *chosen]).metrics
    return {str(name): instantiate(node) for name, node in (metrics or {}).items() if node}


if __name__ == "__main__":
    main()
