"""Command lines with a config: Hydra runs them, and bad input ends them with one line and exit code 2.

A command checks its input and builds its objects in a ``prepare`` function. It runs before Hydra creates the run
directory, so bad input leaves no files behind.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, runtime_checkable

import hydra
from hydra._internal.utils import get_args_parser  # private; Hydra is capped below 1.4
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.config.composition import CONF_DIR
from stylegan_inv.config.overrides import check_added_keys, check_groups, explained, searched_folders
from stylegan_inv.config.search_storage import check_storage, storage_error
from stylegan_inv.config.typed_names import as_typed, interpolated_names_as_text
from stylegan_inv.config.value_checks import check_values
from stylegan_inv.errors import UserError
from stylegan_inv.utils.command_line import (
    ArgumentParser,
    flushed_output,
    report_error,
    report_interrupt,
    report_system_error,
    system_error,
)
from stylegan_inv.utils.parent_process import die_with_parent
from stylegan_inv.utils.text import STANDARD_OUTPUT, print_any_text
from stylegan_inv.weights.download import downloads

#: Exceptions that mean bad input.
_INPUT_ERRORS = (UserError, HydraException, OmegaConfBaseException)


@runtime_checkable
class HasRunDir(Protocol):
    """A prepared job that selects its own run directory."""

    @property
    def run_dir(self) -> Path:
        """The folder, which may be that of an earlier run."""


def entry_point(
    config_name: str, prepare: Callable[[DictConfig], Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[[], None]]:
    """Makes a Hydra command line from a function ``main(cfg)`` or, with ``prepare``, ``main(cfg, prepared)``.

    Args:
        config_name: Name of the top config in ``conf/``, without ``.yaml``.
        prepare: Checks the input and builds what ``main`` needs, before the run directory exists.

    Returns:
        A decorator.
    """

    def decorate(main: Callable[..., Any]) -> Callable[[], None]:
        @functools.wraps(main)
        def command_line() -> None:
            die_with_parent()
            print_any_text()
            # Hydra then raises errors, for the report below, instead of printing them and exiting with 1.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            sys.argv[1:] = as_typed(sys.argv[1:])
            PrepareFirst.prepare = staticmethod(prepare) if prepare else None
            _register_launcher()
            task = HydraTask(f"stylegan_inv.{config_name}", main, prepare)
            run = hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(task)
            overrides: list[str] = []
            folders: list[str | None] = []
            try:
                overrides, folders = _options(config_name)
                check_groups(overrides)
                folders += searched_folders(overrides)
                with flushed_output():
                    run()
            except _INPUT_ERRORS as error:
                PrepareFirst.summarise_failed_sweep()
                sys.exit(report_error(explained(error, config_name, overrides, folders)))
            except OSError as error:
                sys.exit(report_system_error(error))
            except KeyboardInterrupt:
                sys.exit(report_interrupt())
            except Exception as error:
                line = storage_error(error, PrepareFirst.sweep())
                if line is None:
                    raise
                sys.exit(report_error(line))

        return command_line

    return decorate


class HydraTask:
    """The function that Hydra runs: ``main`` of a command or, in a sweep, the job's command in its own process.

    With every launcher a job thus releases its memory when it ends, and a job that is killed kills nothing else.
    Launchers that send jobs to other processes pickle this object; these processes need the command only.

    Args:
        module: Module of the command, after which Hydra names the job and its log.
        main: See `entry_point`.
        prepare: See `entry_point`.
    """

    def __init__(
        self, module: str, main: Callable[..., Any] | None, prepare: Callable[[DictConfig], Any] | None
    ) -> None:
        self.__module__ = module
        self.module, self.main, self.prepare, self.command = module, main, prepare, program(module)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "main": None, "prepare": None}

    def __call__(self, cfg: DictConfig) -> Any:
        """Runs the command or the job."""
        if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
            return self._run_job(cfg)
        assert self.main is not None
        interpolated_names_as_text(cfg)
        try:
            with downloads(OmegaConf.select(cfg, "weights.offline")):
                if self.prepare is None:
                    return self.main(cfg)
                prepared = PrepareFirst.take() if PrepareFirst.has_prepared() else self.prepare(cfg)
                return self.main(cfg, prepared)
        except UserError as error:  # Hydra prints a line of its own about other exceptions
            sys.exit(report_error(error))
        except OSError as error:
            sys.exit(report_system_error(error))

    def _run_job(self, cfg: DictConfig) -> float | None:
        from stylegan_inv.runtime.sweep_process import job_overrides, metric_of, run_job

        hydra_cfg = HydraConfig.get()
        folder = Path(hydra_cfg.runtime.output_dir)
        own = list(hydra_cfg.overrides.task)
        code = run_job([*self.command, *own, *job_overrides(folder, hydra_cfg.sweep.dir, cfg, own)])
        if code:
            raise UserError(f"job {hydra_cfg.job.num} of the sweep failed (exit code {code}); see its message above")
        return metric_of(folder, OmegaConf.select(cfg, "optimized_metric"))


class PrepareFirst(Callback):
    """Hydra callback that runs ``prepare`` of a command before the run directory is created.

    In a multirun each job runs it for itself, so that bad input of one job does not stop the others.
    """

    prepare: ClassVar[Callable[[DictConfig], Any] | None] = None
    _prepared: ClassVar[list[Any]] = []
    _sweep: ClassVar[DictConfig | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        if PrepareFirst.prepare is None:
            return
        with read_write(config.hydra.runtime):
            # Hydra sets it when it makes the folder; parts of the config refer to it.
            config.hydra.runtime.output_dir = str(Path(str(config.hydra.run.dir)).absolute())
        HydraConfig.instance().set_config(config)
        job_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
        try:
            _check_working_directory(config)
            check_added_keys(config)
            check_values(job_config)
            interpolated_names_as_text(job_config)
            with downloads(OmegaConf.select(job_config, "weights.offline")):
                prepared = PrepareFirst.prepare(job_config)
            if isinstance(prepared, HasRunDir):
                with read_write(config.hydra.run):
                    config.hydra.run.dir = str(prepared.run_dir)
            PrepareFirst._prepared = [prepared]
        # Hydra turns exceptions of callbacks into warnings, but not SystemExit.
        except _INPUT_ERRORS as error:
            sys.exit(report_error(error))
        except OSError as error:  # of a file that the user gave
            if error.filename == STANDARD_OUTPUT:
                sys.exit(report_system_error(error))
            if error.strerror is None:
                _exit_with_traceback()
            sys.exit(report_error(system_error(error)))
        except Exception:
            _exit_with_traceback()

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        PrepareFirst._sweep = config
        try:
            _check_working_directory(config)
            check_storage(config)
        except UserError as error:
            PrepareFirst._sweep = None
            sys.exit(report_error(error))

    @staticmethod
    def sweep() -> DictConfig | None:
        """Returns the config of the sweep that has been started; None without one."""
        return PrepareFirst._sweep

    @staticmethod
    def summarise_failed_sweep() -> None:
        """Prints the table of a sweep in which a job has failed, as Hydra then does not call its callbacks."""
        sweep = PrepareFirst._sweep
        if sweep is not None and "sweep_summary" in sweep.hydra.callbacks:
            hydra.utils.instantiate(sweep.hydra.callbacks.sweep_summary).on_multirun_end(sweep)

    @staticmethod
    def has_prepared() -> bool:
        """Returns whether ``prepare`` has run and its result has not been taken."""
        return bool(PrepareFirst._prepared)

    @staticmethod
    def take() -> Any:
        """Returns the result of ``prepare``, once."""
        return PrepareFirst._prepared.pop()


def program(module: str) -> list[str]:
    """Returns ``python -m <module>`` with the options of this command line that select the config directory.

    Args:
        module: Module of the command.
    """
    command = [sys.executable, "-m", module]
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
            command += [argument, next(arguments)]
        elif argument.startswith(("--config-dir=", "--config-name=", "--config-path=")):
            command.append(argument)
    return command


def same_command(module: str) -> list[str]:
    """Returns the command line of this command, for another rank; in a sweep that of this job only.

    Args:
        module: Module of the command.
    """
    overrides = HydraConfig.get().overrides
    own = [o for o in overrides.hydra if not o.startswith(("hydra.mode=", "hydra.sweep."))]
    return [*program(module), *own, "hydra.mode=RUN", *overrides.task]  # conf/sweep sets MULTIRUN


def _options(config_name: str) -> tuple[list[str], list[str | None]]:
    """Parses the options of Hydra's command line, whose own parser prints its usage before an error.

    Returns:
        The overrides, and the folders of configs that it names.

    Raises:
        UserError: An unknown option, or Hydra's option to repeat a run from a pickle, which could execute anything.
    """
    prog = f"python -m stylegan_inv.{config_name}"
    options = ArgumentParser(prog=prog, parents=[get_args_parser()], add_help=False).parse_args()
    if options.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun: reads a pickle, which can execute code; repeat the command with the overrides in "
            ".hydra/overrides.yaml"
        )
    return [str(override) for override in options.overrides], [options.config_dir, options.config_path]


def _check_working_directory(config: DictConfig) -> None:
    if config.hydra.job.chdir:
        raise UserError(
            "hydra.job.chdir=true: relative paths of the command line would then be searched in the run folder; "
            "leave it out, all files of a run are written to hydra.run.dir anyway"
        )


def _exit_with_traceback() -> NoReturn:
    """Ends the process because of an error that is no bad input; no folder has been made."""
    traceback.print_exc()
    sys.exit(1)


def _register_launcher() -> None:
    """Registers the launcher of conf/hydra/launcher/process; Hydra searches for plugins only once in a process."""
    folder = str(Path(__file__).resolve().parents[1] / "sweeps")
    if folder not in sys.path:
        sys.path.append(folder)
    plugin = importlib.import_module("hydra_plugins.stylegan_inv_process_launcher")
    Plugins.instance().register(plugin.ProcessLauncher)
