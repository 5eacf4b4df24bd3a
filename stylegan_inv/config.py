"""The only module besides the entry points that knows Hydra.

It finds the config tree, turns an entry point's ``main(cfg)`` into a command line, and builds objects from
config nodes. Bad input ends with one line on standard error and exit code 2, before anything is written: what an
entry point builds or checks is done in its ``prepare`` step, which runs before Hydra creates the run directory.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.errors import UserError
from stylegan_inv.weights.download import TABLE, downloads

_PACKAGE = Path(__file__).resolve().parent
#: The config tree: inside the installed wheel, or beside the package in a checkout.
CONF_DIR = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"

EXIT_USER_ERROR = 2
#: Where a refinement can begin without another method.
STARTS = ("average", "random")


def entry_point(
    config_name: str, prepare: Callable[[DictConfig], Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Make a Hydra command line out of ``main``.

    Args:
        config_name: The top config in ``conf/`` (without ``.yaml``).
        prepare: Checks the input and builds what ``main`` needs; runs before the run directory exists. Its result
            is passed to ``main`` as second argument.

    Returns:
        A decorator for ``main(cfg)`` or, with ``prepare``, ``main(cfg, prepared)``.
    """

    def decorate(main: Callable[..., Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def command_line() -> None:
            # Let errors through to the reporting below instead of Hydra's own, which exits with 1.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            CheckFirst.prepare = staticmethod(prepare) if prepare else None
            _register_launcher()
            task = _Task(f"stylegan_inv.{config_name}", main, prepare)
            run = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(task)
            try:
                run()
            except (UserError, HydraException, OmegaConfBaseException) as error:
                CheckFirst.sum_up_failed_sweep()
                sys.exit(report(error))

        return command_line

    return decorate


def _register_launcher() -> None:
    """Make the launcher of conf/hydra/launcher/process known to Hydra, which searches for plugins once in a process."""
    folder = str(_PACKAGE / "sweeps")
    if folder not in sys.path:
        sys.path.append(folder)
    plugin = importlib.import_module("hydra_plugins.stylegan_inv_process_launcher")
    Plugins.instance().register(plugin.ProcessLauncher)


class _Task:
    """What Hydra runs: the entry point's ``main``, or in a sweep the command of the job in a process of its own.

    So with every launcher a job's memory is really freed and what kills a job kills nothing else. Launchers that send
    jobs to other processes pickle this; these need the command alone.
    """

    def __init__(
        self, module: str, main: Callable[..., Any] | None, prepare: Callable[[DictConfig], Any] | None
    ) -> None:
        self.__module__ = module  # Hydra names the job and its log after it
        self.module, self.main, self.prepare, self.command = module, main, prepare, program(module)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "main": None, "prepare": None}

    def __call__(self, cfg: DictConfig) -> Any:
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            return self._run_job(cfg)
        assert self.main is not None
        with downloads(OmegaConf.select(cfg, "weights.offline")):
            if self.prepare is None:
                return self.main(cfg)
            prepared = CheckFirst.take(cfg) if CheckFirst.holds() else self.prepare(cfg)
            return self.main(cfg, prepared)

    def _run_job(self, cfg: DictConfig) -> float | None:
        from stylegan_inv.runtime.job_process import of_job, run_job, value_of

        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        own = list(hydra_cfg.overrides.task)
        code = run_job([*self.command, *own, *of_job(folder, hydra_cfg.sweep.dir, cfg, own)])
        if code:
            raise UserError(f"job {hydra_cfg.job.num} of the sweep failed (exit code {code}); see its message above")
        return value_of(folder, OmegaConf.select(cfg, "optimized_metric"))


class CheckFirst(Callback):
    """Hydra callback that runs an entry point's ``prepare`` before the run directory is created.

    In a multirun each job prepares for itself, so that one bad job does not stop the others.
    """

    prepare: Callable[[DictConfig], Any] | None = None
    _prepared: list[Any] = []
    _sweep: DictConfig | None = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        if CheckFirst.prepare is None:
            return
        HydraConfig.instance().set_config(config)
        job_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            with downloads(OmegaConf.select(job_config, "weights.offline")):
                prepared = CheckFirst.prepare(job_config)
            if (run_dir := getattr(prepared, "run_dir", None)) is not None:  # it may be that of a run to continue
                with read_write(config.hydra.run):
                    config.hydra.run.dir = str(run_dir)
            CheckFirst._prepared = [prepared]
        except (UserError, HydraException, OmegaConfBaseException) as error:
            # Hydra turns exceptions of callbacks into warnings; SystemExit passes.
            sys.exit(report(error))

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        CheckFirst._sweep = config

    @staticmethod
    def sum_up_failed_sweep() -> None:
        """The table that Hydra would have shown at the end of a sweep, had no job failed."""
        sweep = CheckFirst._sweep
        if sweep is not None and "sweep_summary" in sweep.hydra.callbacks:
            hydra.utils.instantiate(sweep.hydra.callbacks.sweep_summary).on_multirun_end(sweep)

    @staticmethod
    def holds() -> bool:
        """Whether a prepared object waits to be taken."""
        return bool(CheckFirst._prepared)

    @staticmethod
    def take(cfg: DictConfig) -> Any:
        """Hand over the prepared object, once."""
        return CheckFirst._prepared.pop()


def compose(config_name: str, overrides: list[str]) -> DictConfig:
    """The config of an entry point, outside its command line."""
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return hydra.compose(config_name, overrides)


def program(module: str) -> list[str]:
    """``python -m <module>`` with what this command was told about where configs lie."""
    command = [sys.executable, "-m", module]
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
            command += [argument, next(arguments)]
        elif argument.startswith(("--config-dir=", "--config-name=", "--config-path=")):
            command.append(argument)
    return command


def same_command(module: str) -> list[str]:
    """This command again, for another rank; in a sweep this job alone."""
    overrides = HydraConfig.get().overrides
    own = [o for o in overrides.hydra if not o.startswith(("hydra.mode=", "hydra.sweep."))]
    return [*program(module), *own, "hydra.mode=RUN", *overrides.task]  # conf/sweep says MULTIRUN


def report(error: BaseException) -> int:
    """Print one line for the user; the exit code."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    text = str(cause or error)
    line = " ".join(part.strip() for part in text.splitlines() if part.strip() and "HYDRA_FULL_ERROR" not in part)
    print(f"error: {line}", file=sys.stderr)
    return EXIT_USER_ERROR


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Build what a config node describes (``_target_``); a :class:`UserError` inside comes out as such."""
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__ or error.__context__
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise


def instantiate_method(node: Any, **kwargs: Any) -> Any:
    """Builds a method; a ``start`` that names a run or published weights is loaded.

    Args:
        node: The method's config.
        **kwargs: Further arguments of its constructor.

    Raises:
        UserError: See :func:`instantiate`; or a ``start`` that is neither a word of the method nor a run.
    """
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=True)
    return instantiate(_with_loaded_start(node), **kwargs)


def _with_loaded_start(node: Any) -> Any:
    start = node.get("start") if isinstance(node, dict) else None
    if isinstance(start, dict):
        return {**node, "start": _with_loaded_start(start)}
    if not isinstance(start, str) or start in STARTS:
        return node
    if not Path(start).exists() and start not in TABLE:
        words = " or ".join(map(repr, STARTS))
        raise UserError(f"method.start={start!r}: expected {words}, or the run folder of a trained method")
    return {**node, "start": {"_target_": "stylegan_inv.load_inverter", "path": start}}


def build_loss_terms(terms: dict[str, Any]) -> Any:
    """Build the weighted sum of ``conf/loss``: a dict of term -> {_target_, weight, arguments of the term}.

    A term of weight 0 is not built: neither its file nor its network is needed.

    Raises:
        UserError: A term without ``_target_`` or ``weight``, with a weight that is not a finite number, with a value
            that was not given, or whose file is absent; or no term that counts.
    """
    import math

    from stylegan_inv.losses.compose import LossTerms

    modules, weights = {}, {}
    for name, node in terms.items():
        node = dict(node)
        weight = node.pop("weight", None)
        if "_target_" not in node or isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise UserError(
                f"loss.{name}: got keys {sorted(node)}, weight {weight!r}; expected a _target_ and a numeric weight, "
                f"e.g. +loss.{name}={{_target_: stylegan_inv.losses.pixel.L2, weight: 1.0}}"
            )
        if not math.isfinite(weight):
            raise UserError(f"loss.{name}.weight={weight}: expected a finite number")
        if weight == 0:
            continue
        if absent := _not_given(node):
            key = f"loss.{name}.{absent}"
            raise UserError(f"{key} was not given; give {key}=…, or leave the term out (~loss.{name})")
        try:
            modules[str(name)] = instantiate(node)
        except UserError as error:
            raise UserError(f"loss.{name}: {error}") from error
        weights[str(name)] = float(weight)
    if not modules:
        raise UserError("loss: got no term with a weight, expected at least one; e.g. loss=embedded")
    return LossTerms(modules, weights)


def _not_given(node: Any, path: str = "") -> str:
    """The first key whose value is ``???``, dotted; empty if there is none."""
    if node == "???":
        return path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    found = (_not_given(value, f"{path}.{key}".lstrip(".")) for key, value in items)
    return next(filter(None, found), "")


def plain(cfg: DictConfig) -> dict[str, Any]:
    """The resolved config as plain containers, for files and hyper-parameters (checkpoints stay `weights_only`)."""
    container = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check_geometry(cfg: DictConfig) -> None:
    """The checks across fields that single values cannot make.

    Raises:
        UserError: A size, count or batch that is not positive, a resolution that no network here takes, or
            ``sync_batchnorm`` where there is nothing to synchronise or PyTorch cannot.
    """
    for key in (
        "dataset.batch_size",
        "dataset.val_size",
        "dataset.val_batch_size",
        "dataset.resolution",
        "trainer.max_steps",
        "method.iterations",
    ):
        value = OmegaConf.select(cfg, key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UserError(f"{key}={value}: got {value!r}, expected a whole number of at least 1")
    if OmegaConf.select(cfg, "trainer.sync_batchnorm"):
        _check_sync_batchnorm(cfg.trainer)
    resolution = OmegaConf.select(cfg, "dataset.resolution")
    if resolution is not None and resolution % 16:
        raise UserError(f"dataset.resolution={resolution}: expected a multiple of 16, e.g. 64 or 256")


def _check_sync_batchnorm(trainer: DictConfig) -> None:
    import torch

    if OmegaConf.select(trainer, "strategy") is None:
        raise UserError("trainer.sync_batchnorm=true: got a single process; expected trainer=ddp, which has several")
    # PyTorch has it for CUDA alone and would stop in the first forward pass.
    if trainer.accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        raise UserError(
            f"trainer.sync_batchnorm=true: needs CUDA GPUs, got trainer.accelerator={trainer.accelerator} and "
            f"{torch.cuda.device_count()} of them; leave it out, then each rank normalises by its own images"
        )
