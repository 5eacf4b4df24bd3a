"""Loads a method from a run folder, one of its checkpoints, a shipped encoder or an official checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from stylegan_inv.config import compose, instantiate, instantiate_method, start_of
from stylegan_inv.data.tasks.base import Task
from stylegan_inv.encoders.official.feature_checkpoints import build_feature_networks
from stylegan_inv.encoders.official.hfgi_networks import hfgi_networks
from stylegan_inv.encoders.official.hypernetwork_files import (
    domain_of_options,
    file_beside,
    hyperinverter_networks,
    hyperstyle_network,
)
from stylegan_inv.encoders.official.official_checkpoint import (
    OfficialCheckpoint,
    build_encoder,
    checkpoint_generator,
    read_checkpoint,
)
from stylegan_inv.encoders.shipped_files import ShippedEncoder, build_shipped, read_shipped, shipped_file
from stylegan_inv.errors import UserError
from stylegan_inv.generators.grey import as_rgb
from stylegan_inv.generators.io.formats import embedded_generators, known_domain, load_generator
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.reached_distances import ReachedDistances
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.methods.e4e import E4E
from stylegan_inv.methods.feature_space.fse import FSE
from stylegan_inv.methods.feature_space.hfgi import HFGI
from stylegan_inv.methods.feature_space.sfe import SFE
from stylegan_inv.methods.generator.generator_training import GeneratorTraining
from stylegan_inv.methods.hyperinverter import HyperInverter
from stylegan_inv.methods.hyperstyle import HyperStyle
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.runtime import checkpoint_io
from stylegan_inv.runtime.checkpoint_io import load_state
from stylegan_inv.runtime.resumable_job import settings_hash
from stylegan_inv.runtime.run_folder import RunFolder, check_run
from stylegan_inv.trust.allowed_names import LARGEST
from stylegan_inv.trust.bounded_memory import bounded_memory
from stylegan_inv.trust.config_check import checked_trust
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.weights.download import fetch, file_hash
from stylegan_inv.weights.table import TABLE

#: More than any paper uses.
_MOST_ITERATIONS = 1000
#: The methods that the file of a shipped encoder can name.
SHIPPED_METHODS: dict[str, type[PSP] | type[ReStyle]] = {kind.__name__: kind for kind in (PSP, E4E, ReStyle)}
#: The arguments of the method that it can set, and their largest values.
SHIPPED_ARGUMENTS = {"iterations": _MOST_ITERATIONS, "in_channels": 64}
#: The domains that it can name; each has a data set of its name.
SHIPPED_DOMAINS = ("synthfaces",)
#: Kinds of official files that become FSE and SFE, and the generator of those that have none.
FEATURE_METHODS, PSP_GENERATOR = ("fse", "sfe"), "stylegan2-ffhq-config-f"
#: Longest chain of runs that start from one another.
_MOST_STARTS = 8
#: Arguments of a method that are compared by the hashes of their weights, that only training needs, or whose names may
#: change with the version.
_NO_SETTINGS = ("_target_", "generator", "start", "encoder", "features", "loss", "optimizer", "scheduler", "metrics")


def load_inverter(
    path: str | Path, device: str | torch.device = "cpu", *, trust: str | Collection[str] = ()
) -> InversionMethod:
    """Loads a trained method. A run folder or a file of a stranger is data: nothing in it is executed.

    Args:
        path: A run folder, whose newest checkpoint is loaded, a checkpoint in one, the name of a shipped encoder such
            as ``restyle_synthfaces``, an official checkpoint of pSp, e4e, ReStyle or a method based on them, or the
            name of one in `weights.table`.
        device: Device of the method.
        trust: Modules that the config of a run may name besides the public classes of this package; their code is
            executed. Those of a run that was trained on this machine are known.

    Returns:
        The method in evaluation mode, frozen. Its ``input_size`` is the resolution that it was trained with, its
        ``domain`` that of the data.

    Raises:
        UserError: The folder does not exist, has no config or checkpoint, or is a run of another module than an
            inversion method; its config names anything else; or a checkpoint that does not fit.
    """
    check_run("run", path)
    run = RunFolder.of(path)
    if run is None:
        shipped = shipped_file(path)
        return load_official(path, device) if shipped is None else load_shipped(shipped, device)
    modules = checked_trust(trust)
    cfg = run.config(modules)
    if not isinstance(cfg.get("method"), DictConfig) or "_target_" not in cfg.method:
        raise UserError(f"{run.config_file}: has no method, expected the config of a training run")
    checkpoint_path = run.checkpoint()
    if checkpoint_path is None:
        raise UserError(f"{run.path}: no checkpoints/last.ckpt in it; train first, or give another run")
    checkpoint = checkpoint_io.read_checkpoint(checkpoint_path)
    method = _build(run, cfg, modules, checkpoint_path.stat().st_size)
    if not isinstance(method, InversionMethod):
        raise UserError(f"{run.path}: holds a {type(method).__name__}, expected an inversion method")
    _restore(method, checkpoint, checkpoint_path)
    resolution = OmegaConf.select(cfg, "dataset.resolution")
    if resolution is not None:
        method.input_size = whole_number(f"{run.config_file}: dataset.resolution", resolution, 4, LARGEST["resolution"])
    method.domain = run.domain()
    method.settings_hash = settings_hash(_settings(run.stored_config()["method"]))
    return method.to(device).eval().requires_grad_(False)


def load_generator_training(path: str | Path) -> GeneratorTraining:
    """Loads a training of generators from its run folder, or from a checkpoint in one, with its networks.

    Args:
        path: See `load_inverter`.

    Raises:
        UserError: See `load_inverter`; or the run is none of a generator.
    """
    run = RunFolder.of(path)
    checkpoint_path = None if run is None else run.checkpoint()
    if run is None or checkpoint_path is None:
        raise UserError(f"{path}: has no checkpoints/last.ckpt, expected the folder of a run of method=stylegan2")
    checkpoint = checkpoint_io.read_checkpoint(checkpoint_path)
    cfg = run.config()
    node: Any = OmegaConf.to_container(cfg.method) if isinstance(cfg.get("method"), DictConfig) else {}
    kind = resolve_name(node["_target_"]) if "_target_" in node else None
    if not (isinstance(kind, type) and issubclass(kind, GeneratorTraining)):
        raise UserError(f"{run.path}: expected a run of method=stylegan2, got {node.get('_target_', 'no method')}")
    # The checkpoint has the moving average, and metrics download their networks.
    node |= {"metrics": None, "generator_ema": None}
    run.check_part(node, "method")
    with bounded_memory(checkpoint_path.stat().st_size):
        method: GeneratorTraining = instantiate_method(node)
    with checkpoint_io.restoring(checkpoint_path, method):
        state = {k: v for k, v in checkpoint["state_dict"].items() if not str(k).startswith("metrics.")}
        load_state(method, state, checkpoint_path)
    return method


def _build(run: RunFolder, cfg: DictConfig, trust: tuple[str, ...], size: int) -> Any:
    """Builds the method of a config whose names have been checked."""
    try:
        node = _for_inverting(OmegaConf.to_container(cfg.method))
    except (ImportError, AttributeError) as error:
        raise UserError(f"{run.config_file}: method: {error}; Python cannot import it from here") from error
    run.check_part(node, "method")
    _check_starts(run, node)
    try:
        with bounded_memory(size):
            return instantiate_method(node, trust)
    except UserError as error:
        raise UserError(f"{run.config_file}: {error}") from error
    except Exception as error:  # arguments that do not fit raise errors of many types
        reason = str(error.__cause__ or error).splitlines() or [type(error).__name__]
        raise UserError(f"{run.config_file}: method cannot be built ({reason[0][:200]})") from error


def _restore(method: InversionMethod, checkpoint: dict[str, Any], path: Path) -> None:
    """Loads a checkpoint into a method, without the state of losses, which only training needs."""
    with checkpoint_io.restoring(path, method):
        method.on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        if isinstance(method, TrainedMethod):
            left_out = {"loss", "adversary"} - dict(method.named_children()).keys()
            state = {key: value for key, value in state.items() if str(key).split(".")[0] not in left_out}
        load_state(method, state, path)


def _check_starts(run: RunFolder, node: Any) -> None:
    """Raises a UserError if the runs that a method starts from lead back to one of them."""
    chain = [run.path.resolve()]
    while (start := start_of(node)) is not None and (source := RunFolder.of(start)) is not None:
        if source.path.resolve() in chain or len(chain) > _MOST_STARTS:
            raise UserError(f"{run.config_file}: method.start={start}: leads back to this run, or too far")
        chain.append(source.path.resolve())
        node = source.stored_config().get("method")


def _settings(node: Any) -> Any:
    """Returns what a config says about a method besides its networks, which have hashes of their own."""
    if not isinstance(node, dict):
        return node
    return {key: _settings(value) for key, value in node.items() if key not in _NO_SETTINGS}


def _for_inverting(node: Any) -> Any:
    """Returns the config of a method without the parts that only training needs."""
    node = _without_pretrained(node)
    kind = resolve_name(node["_target_"])
    if "loss" in node and isinstance(kind, type) and issubclass(kind, TrainedMethod):
        node |= {name: None for name in ("loss", "adversary", "directions") if name in node}
    return node


def _without_pretrained(node: Any) -> Any:
    """Returns a config whose encoder does not load pretrained weights.

    The checkpoint has all weights, and the files may not exist any more.
    """
    if isinstance(node, dict):
        return {key: None if key == "pretrained" else _without_pretrained(value) for key, value in node.items()}
    return [_without_pretrained(value) for value in node] if isinstance(node, list) else node


def load_task(run: str | Path, trust: Collection[str] = ()) -> Task | None:
    """Returns the translation task that a run was trained for; None without one.

    Args:
        run: See `load_inverter`.
        trust: See `load_inverter`.

    Raises:
        UserError: The config names something else.
    """
    folder = RunFolder.of(run)
    node = None if folder is None else folder.task_config(trust)
    with bounded_memory():
        task = instantiate(node)
    if task is not None and not isinstance(task, Task):
        raise UserError(f"{run}: dataset.task: got a {type(task).__name__}, expected a translation task, or null")
    return task


def dataset_of(run: str | Path, trust: Collection[str] = ()) -> DictConfig | None:
    """Returns the config of the data set that a run or a shipped encoder was trained with; None if it is not known.

    Args:
        run: See `load_inverter`.
        trust: See `load_inverter`.
    """
    folder = RunFolder.of(run)
    if folder is not None:
        return folder.dataset_config(trust)
    file = shipped_file(run)
    if file is None:
        return None
    composed = compose("train", [f"dataset={_read_shipped(file)[0].domain}"])
    return OmegaConf.create(OmegaConf.to_container(composed.dataset, resolve=True))  # type: ignore[return-value]


def load_shipped(path: Path, device: str | torch.device = "cpu") -> InversionMethod:
    """Loads a method with a shipped encoder and the embedded generator that it was trained for.

    Args:
        path: File of the encoder, see `encoders.shipped_files`.
        device: Device of the method.

    Returns:
        The method in evaluation mode, frozen.

    Raises:
        UserError: A file that cannot be read, that names an unknown method, encoder, generator or data set, or that was
            made for another generator.
    """
    about, state = _read_shipped(path)
    generator = load_generator(about.generator)
    if generator.source_hash != about.generator_hash:
        raise UserError(
            f"{path}: was trained for the generator {about.generator} {about.generator_hash[:12]}, got "
            f"{str(generator.source_hash)[:12]}; train it again: {about.command}"
        )

    def built(**shape: int) -> nn.Module:
        return build_shipped(about, state, **shape)

    try:
        for name, value in about.method_arguments.items():
            one_of("method_arguments", name, SHIPPED_ARGUMENTS)
            whole_number(f"method_arguments.{name}", value, 1, SHIPPED_ARGUMENTS[name])
        method = SHIPPED_METHODS[about.method](generator=generator, encoder=built, **about.method_arguments)
        method.reached = ReachedDistances.from_plain(about.distances)
    except (TypeError, UserError) as error:
        raise UserError(f"{path}: {error}") from None
    method.input_size, method.domain = about.resolution, about.domain
    return method.to(device).eval().requires_grad_(False)


def _read_shipped(path: Path) -> tuple[ShippedEncoder, dict[str, Tensor]]:
    """Returns the content of a file, after checking the names in it."""
    about, state = read_shipped(path)
    one_of(f"{path}: method", about.method, SHIPPED_METHODS)
    one_of(f"{path}: generator", about.generator, embedded_generators())
    one_of(f"{path}: domain", about.domain, SHIPPED_DOMAINS)
    return about, state


def load_official(
    source: str | Path,
    device: str | torch.device = "cpu",
    *,
    progressive: bool | None = None,
    offline: bool | None = None,
) -> InversionMethod:
    """Loads a method from an official checkpoint, without executing code in it.

    Files of the Feature-Style encoder and StyleFeatureEditor become `FSE` and `SFE`, with pSp's generator if the file
    has none. An encoder with six input channels, which takes an image and its reconstruction, becomes ReStyle with the
    number of iterations in the file. Any other encoder becomes pSp; e4e inverts in the same way, it differs in the
    encoder and in the training.

    Args:
        source: An official checkpoint, our conversion of one, or a name of the weights table.
        device: Device of the method.
        progressive: Whether the encoder is that of e4e, for files without options.
        offline: Whether downloads are forbidden; None reads the environment.

    Returns:
        The method in evaluation mode, frozen.

    Raises:
        UserError: A file that cannot be read, or has no encoder and generator that fit together.
    """
    path = fetch(source, offline=offline) if str(source) in TABLE else Path(source).expanduser()
    checkpoint = read_checkpoint(path)
    if checkpoint.kind in FEATURE_METHODS:
        return _load_feature_method(source, path, checkpoint, offline).to(device).eval().requires_grad_(False)
    if checkpoint.kind in ("hyperstyle", "hyperinverter"):
        build = _load_hyperstyle if checkpoint.kind == "hyperstyle" else _load_hyperinverter
        try:
            found = build(checkpoint, source, path, offline)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
        found.domain = found.generator.domain
        return found.to(device).eval().requires_grad_(False)
    try:
        if checkpoint.others and checkpoint.kind != "hfgi":
            raise UserError(f"holds {', '.join(checkpoint.others)} besides an encoder, which no method here uses")
        if checkpoint.encoder and not checkpoint.decoder:
            raise UserError(
                "has an encoder alone, expected a StyleGAN2 generator with it; give the checkpoint with both"
            )
        of_hfgi = checkpoint.kind == "hfgi"  # whose encoder is e4e's
        encoder = build_encoder(checkpoint, progressive=True if of_hfgi and progressive is None else progressive)
        if checkpoint.latent_avg is None or checkpoint.opts.get("start_from_latent_avg") is False:
            reason = "has no latent_avg" if checkpoint.latent_avg is None else "was trained without latent_avg (opts)"
            raise UserError(
                f"{reason}: its codes are absolute, which is not supported, as methods here predict what to add to it"
            )
        generator = as_rgb(checkpoint_generator(checkpoint)[0])
        rows = checkpoint.latent_avg.reshape(-1, generator.w_dim)
        if not torch.allclose(rows, rows[:1].expand_as(rows), atol=1e-5):
            raise UserError("has a latent_avg that differs between layers, which is not supported")
        if (encoder.num_ws, encoder.w_dim) != (generator.num_ws, generator.w_dim):
            raise UserError(
                f"has an encoder for codes {(encoder.num_ws, encoder.w_dim)} and a generator for "
                f"{(generator.num_ws, generator.w_dim)}"
            )
        refiners = hfgi_networks(checkpoint, generator) if of_hfgi else None
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    generator.source_hash = file_hash(path)
    generator.domain = known_domain(source, path, checkpoint.metadata, generator.source_hash)

    def built(**_: int) -> nn.Module:
        return encoder

    method: InversionMethod
    if encoder.in_channels == 6:
        iterations = checkpoint.opts.get("n_iters_per_batch", 5)
        whole_number(f"{path}: n_iters_per_batch", iterations, 1, _MOST_ITERATIONS)
        method = ReStyle(generator=generator, encoder=built, iterations=iterations)
    else:
        method = PSP(generator=generator, encoder=built, in_channels=encoder.in_channels)
    method.domain = generator.domain
    if refiners is not None:
        consultation, aligner = (_as_given(network) for network in refiners)
        # Its networks were trained on residuals with aliasing, see there.
        method = HFGI(
            generator=generator, start=method, consultation=consultation, aligner=aligner, aliased_residual=True
        )
        method.domain = generator.domain
    return method.to(device).eval().requires_grad_(False)


def _as_given(network: nn.Module) -> Callable[..., nn.Module]:
    """Returns a function that returns a network whatever shape it is asked for."""
    return lambda **_: network


def _load_feature_method(
    source: str | Path, path: Path, checkpoint: OfficialCheckpoint, offline: bool | None
) -> InversionMethod:
    """Builds the method of a checkpoint of the Feature-Style encoder or StyleFeatureEditor."""
    try:
        networks = build_feature_networks(checkpoint)
        if checkpoint.decoder:
            generator = as_rgb(checkpoint_generator(checkpoint)[0])
            generator.source_hash = file_hash(path)
            generator.domain = known_domain(source, path, checkpoint.metadata, generator.source_hash)
        else:
            generator = load_generator(str(fetch(PSP_GENERATOR, offline=offline)))
            generator.domain = TABLE[PSP_GENERATOR].domain
            if checkpoint.latent_avg is not None:
                generator.w_avg.copy_(checkpoint.latent_avg.reshape(-1, generator.w_dim)[0])
        made_for = (networks.encoder.num_ws, networks.encoder.w_dim)
        if made_for != (generator.num_ws, generator.w_dim):
            raise UserError(
                f"has an encoder for codes {made_for}, and the generator has {generator.num_ws} x {generator.w_dim}"
            )
        shared: dict[str, Any] = {"generator": generator, "encoder": _as_given(networks.encoder)}
        fuser, editor, embedder = networks.fuser, networks.editor, networks.embedder
        method: InversionMethod
        if fuser is None:
            method = FSE(**shared)
        else:
            start = None if embedder is None else PSP(generator=generator, encoder=_as_given(embedder))
            if start is not None:
                start.domain = generator.domain
            trained = editor is not None  # in the second phase
            changes = nn.Identity() if editor is None else editor
            method = SFE(
                **shared,
                fuser=_as_given(fuser),
                editor=_as_given(changes),
                editor_first_step=0 if trained else 1,
                start=start,
            )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    method.domain = generator.domain
    return method


def _load_hyperstyle(
    checkpoint: OfficialCheckpoint, source: str | Path, path: Path, offline: bool | None = None
) -> HyperStyle:
    """Returns HyperStyle with the hypernetwork and the generator of a file.

    Its encoder into W is in another file: the one that the options name, beside this file, else the published one of
    the domain. It is read when it is first needed, unless another start is given.
    """
    generator = as_rgb(checkpoint_generator(checkpoint)[0])
    generator.source_hash = file_hash(path)
    generator.domain = known_domain(source, path, checkpoint.metadata, generator.source_hash)
    network = hyperstyle_network(checkpoint, generator)
    iterations = checkpoint.opts.get("n_iters_per_batch", 5)
    whole_number("n_iters_per_batch", iterations, 1, _MOST_ITERATIONS)
    method = HyperStyle(generator=generator, start=None, hypernetwork=lambda *_, **__: network, iterations=iterations)
    encoder = file_beside(path, checkpoint.opts, "w_encoder_checkpoint_path")
    domain = generator.domain or domain_of_options(checkpoint.opts)
    published = next((name for name, one in TABLE.items() if name.endswith("-w") and one.domain == domain), None)
    if encoder is not None or published is not None:
        method.find_start = partial(load_official, encoder or str(published), offline=offline)
    return method


def _load_hyperinverter(
    checkpoint: OfficialCheckpoint, source: str | Path, path: Path, offline: bool | None = None
) -> HyperInverter:
    """Returns HyperInverter with all networks of a file but the discriminator.

    The generator is in another file: the one that the options name, beside this file, else the published one of faces.
    """
    file: str | Path | None = file_beside(path, checkpoint.opts, *checkpoint.opts)
    if file is None and domain_of_options(checkpoint.opts) == "faces":
        file = "stylegan2-ffhq-1024"
    if file is None:
        raise UserError("has no generator; put the .pkl that its options name (stylegan_weights) beside it")
    generator = load_generator(file, offline=offline)
    encoder, network = hyperinverter_networks(checkpoint, generator)
    state = checkpoint.others.get("w_encoder", {})
    w_encoder = build_encoder(OfficialCheckpoint("psp", state), num_ws=generator.num_ws)
    start = PSP(generator=generator, encoder=lambda **_: w_encoder)
    start.input_size, start.domain = encoder.image_size, generator.domain
    return HyperInverter(
        generator=generator, start=start, encoder=lambda **_: encoder, hypernetwork=lambda *_, **__: network
    )
