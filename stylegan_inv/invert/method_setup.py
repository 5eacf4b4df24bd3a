"""The method of the invert command: whether it fits the options, and its starting point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config import instantiate_method
from stylegan_inv.encoders.shipped_files import read_shipped, shipped_file
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.run_folder import check_run
from stylegan_inv.trust.config_check import checked_trust
from stylegan_inv.utils.domains import check_domains, domain_of

if TYPE_CHECKING:  # Lightning takes seconds to import; errors in the input are reported before
    from stylegan_inv.data.tasks.base import Task
    from stylegan_inv.methods.common.base import InversionMethod


def select_run(cfg: DictConfig) -> str | None:
    """Returns the run that inverts: the given one, else ``default_run``; None if a method without training is given.

    Raises:
        UserError: No such run; or a ``generator`` without a method, which a run does not use.
    """
    if cfg.start is not None:
        check_run("start", cfg.start)
    if cfg.run is None:
        return None if cfg.get("method") is not None else default_run(cfg)
    check_run("run", cfg.run)
    return str(cfg.run)


def default_run(cfg: DictConfig) -> str | None:
    """Returns the run that inverts images if none is given; None if the config has none.

    Raises:
        UserError: No such run; or another ``generator`` than that of the shipped encoder, which would not be used.
    """
    if cfg.default_run is None:
        return None
    check_run("default_run", cfg.default_run)
    file, source = shipped_file(cfg.default_run), OmegaConf.select(cfg, "generator.source")
    if file is not None and source != (own := read_shipped(file)[0].generator):
        raise UserError(
            f"generator.source={source}: got neither run nor method, and default_run={cfg.default_run} inverts into "
            f"the generator {own}; give run=<a run with your generator>"
        )
    return str(cfg.default_run)


def check_method(cfg: DictConfig) -> None:
    """Raises a UserError unless either a run or a method without training is given."""
    if cfg.get("method") is None:
        if cfg.run is None and cfg.default_run is None:
            raise UserError("got neither run nor method; give run=<folder of a training run>, or method=projector, …")
    elif cfg.run is not None:
        raise UserError(f"got run={cfg.run} and method={cfg.method_name}; expected one of them")
    elif _is_trained(hydra.utils.get_class(cfg.method._target_)):
        raise UserError(
            f"method={cfg.method_name}: must be trained first; give run=<the folder that "
            f"`python -m stylegan_inv.train method={cfg.method_name}` printed>, or method=projector, image2stylegan, …"
        )


def load_method(
    cfg: DictConfig, run: str | None, device: str | torch.device, synthfaces: bool = False
) -> InversionMethod:
    """Returns the method in evaluation mode, with the starting point that ``start`` names.

    Args:
        cfg: Config of the invert command.
        run: Run, checkpoint or name of weights; None for a method without training.
        device: Device of the method.
        synthfaces: Whether the inputs are SynthFaces.

    Raises:
        UserError: The method cannot be loaded, or it does not fit ``start``, ``mask`` or ``reference``, or its parts or
            its inputs are of different domains.
    """
    from stylegan_inv.methods.common.capabilities import StartsFromMethod

    trust = checked_trust(cfg.trust)
    method: InversionMethod = (
        instantiate_method(cfg.method, trust) if run is None else load_inverter(run, device, trust=trust)
    )
    method = method.to(device).eval().requires_grad_(False)
    if cfg.start is not None:
        if not isinstance(method, StartsFromMethod):
            raise UserError(
                f"start={cfg.start}: {type(method).__name__} does not refine; leave it out, or give a run of a "
                "method that does (restyle, hyperstyle, hyperinverter, hfgi, fse, sfe), or method=sam, dhr or pti"
            )
        method.start_from(load_inverter(cfg.start, device, trust=trust))
    if cfg["class"] is not None:
        method.set_class(cfg["class"])
    _check_inputs(cfg, method)
    _check_domains(cfg, run, method, synthfaces)
    return method


def _check_domains(cfg: DictConfig, run: str | None, method: InversionMethod, synthfaces: bool) -> None:
    """Checks that the inputs fit the method, and that its start and its features fit its generator."""
    from stylegan_inv.methods.common.domain_parts import domain_parts, image_domain, run_parts

    parts = domain_parts(method) if run is None else run_parts(method)
    if synthfaces:
        check_domains(f"the input ({cfg.input}) is", "synthfaces", parts, cfg.any_domain)
    others = {name: part for name, part in domain_parts(method).items() if name.startswith(("features", "start"))}
    check_domains("the generator is", image_domain(method), others, cfg.any_domain)
    if image_domain(method) is None:
        for name, part in others.items():
            what = "the features are" if name.endswith("features") else "the start is"
            check_domains(what, domain_of(part), {"generator": method.generator}, cfg.any_domain)


def check_size_and_task(method: InversionMethod, size: int, task: Task | None) -> None:
    """Raises a UserError unless the method takes RGB images of some size, converted by the task of its training."""
    from stylegan_inv.methods.common.fit_check import check_images

    image = torch.zeros(1, 3, size, size)
    channels = (image if task is None else task.read(image)).shape[1]
    check_images(method, size, channels, hint="give a run, whose config names the task of its training")


def _is_trained(kind: type) -> bool:
    from stylegan_inv.methods.common.base import InversionMethod
    from stylegan_inv.methods.common.trained import TrainedMethod

    return issubclass(kind, TrainedMethod) or not issubclass(kind, InversionMethod)


def _check_inputs(cfg: DictConfig, method: InversionMethod) -> None:
    from stylegan_inv.methods.common.per_image import PerImageMethod

    takes_and_needs = {"reference": (False, False), "mask": (False, False)}
    if isinstance(method, PerImageMethod):
        takes_and_needs["reference"] = method.takes_reference, method.needs_reference
        takes_and_needs["mask"] = method.takes_mask, method.needs_mask
    for key, (takes, needs) in takes_and_needs.items():
        if needs and cfg[key] is None:
            raise UserError(f"{type(method).__name__} needs a {key} with these stages; give {key}=…")
        if cfg[key] is not None and not takes:
            raise UserError(f"{key}={cfg[key]}: {type(method).__name__} takes none; method=image2stylegan_pp does")
