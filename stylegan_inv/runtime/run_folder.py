"""The folder of a training run: where each of its files is, and what they hold.

A run folder holds ``config.yaml`` (resolved), ``versions.json``, ``run.json``, ``metrics.csv``, ``metrics.json``,
``panels/`` and ``checkpoints/``. Commands that read a run write into it too: ``evaluation/``, ``inversions/``,
``edits/``.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.encoders.shipped_files import shipped_encoders, shipped_file
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.checkpoint_io import LAST, is_training_checkpoint, newest_readable
from stylegan_inv.trust.config_check import check_names, check_values
from stylegan_inv.trust.remembered_runs import remember_run, remembered_modules
from stylegan_inv.utils.domains import check_domain_name
from stylegan_inv.utils.files import atomic_write, leads_into
from stylegan_inv.utils.old_names import replace_old_names
from stylegan_inv.utils.plain_data import read_json_object, read_yaml
from stylegan_inv.utils.text import json_text
from stylegan_inv.weights.table import TABLE

#: Part of the name of a data set's class -> domain, for runs of version 0.1.
_DOMAIN_OF_DATA = {
    "SynthFaces": "synthfaces",
    "FFHQ": "faces",
    "CelebAHQ": "faces",
    "Cars": "cars",
}
#: Name of the folder in a run folder that holds its checkpoints.
CHECKPOINTS = "checkpoints"
_PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "Pillow")


@dataclass(frozen=True)
class RunFolder:
    """Paths and contents of a run folder; nothing is read or written before it is asked for.

    Attributes:
        path: The folder.
        given_checkpoint: The checkpoint by which the user named the run; None if the user named the folder.
    """

    path: Path
    given_checkpoint: Path | None = None

    @classmethod
    def of(cls, path: str | Path) -> RunFolder | None:
        """Returns the run that a path belongs to.

        Args:
            path: A folder, or a checkpoint in the ``checkpoints/`` of a run folder.

        Returns:
            None for the name of a shipped or published encoder, also where a folder has this name, for a path that does
            not exist, and for a file that is not in a run folder, such as an official checkpoint, even one in a folder
            ``checkpoints`` that has a ``config.yaml`` beside it.
        """
        if is_named(path):
            return None
        path = Path(path)
        if path.is_dir():
            return cls(path)
        # As the path is written: within its own folder, `last.ckpt` has no parts that name the run.
        place = Path(os.path.abspath(path))
        run = cls(path.parent.parent if len(path.parts) > 1 and ".." not in path.parts else place.parent.parent, path)
        right = path.is_file() and place.parent.name == CHECKPOINTS and run.config_file.is_file()
        return run if right and (path.suffix == ".ckpt" or is_training_checkpoint(path)) else None

    @property
    def config_file(self) -> Path:
        """The resolved config."""
        return self.path / "config.yaml"

    @property
    def versions_file(self) -> Path:
        """Versions of Python, the packages and the checkout."""
        return self.path / "versions.json"

    @property
    def record_file(self) -> Path:
        """What a continued run needs to know, see `record`."""
        return self.path / "run.json"

    @property
    def metrics_file(self) -> Path:
        """The last value of each metric, written when the run has finished."""
        return self.path / "metrics.json"

    @property
    def logged_metrics_file(self) -> Path:
        """The metrics of each logged step."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint, which may be damaged; see `checkpoint`."""
        return self.checkpoints / LAST

    @property
    def checkpoint_file(self) -> Path:
        """The checkpoint that the user named, or the last one; neither is read."""
        return self.given_checkpoint or self.last_checkpoint

    def checkpoint(self) -> Path | None:
        """Returns the checkpoint that the user named, or the newest one that can be read; None without any.

        Raises:
            UserError: There are checkpoints, but none can be read.
        """
        return self.given_checkpoint or newest_readable(self.checkpoints)

    def config(self, trust: Collection[str] = ()) -> DictConfig:
        """Returns the config, whose names have been checked, so that its parts can be built.

        The paths in a part are checked by `check_part`.

        Args:
            trust: Modules that it may name besides the public classes of this package. Those of a run that was trained
                on this machine are known.

        Raises:
            UserError: No config, one that cannot be read, or one that names anything else.
        """
        config = self.stored_config()
        try:
            check_names(config, (*trust, *(self._remembered_modules() or ())))
        except UserError as error:
            raise UserError(f"{self.config_file}: {error}") from error
        return OmegaConf.create(config)

    def check_part(self, node: Any, where: str) -> None:
        """Checks the paths and sizes in a part of the config, unless the run was trained on this machine.

        Args:
            node: The part, as plain containers.
            where: Its key.

        Raises:
            UserError: A path out of the run folder to more than weights, or a number that is too large.
        """
        if self._remembered_modules() is not None:
            return
        try:
            check_values(node, where, self.path)
        except UserError as error:
            raise UserError(f"{self.config_file}: {error}") from error

    def stored_config(self) -> dict[str, Any]:
        """Returns the config as plain data, to show and to compare, with the present names instead of earlier ones.

        Raises:
            UserError: No config, or one that cannot be read.
        """
        config: dict[str, Any] = replace_old_names(self._written_config())
        return config

    def has_old_names(self) -> bool:
        """Returns whether an earlier version wrote the config, so that its hash in ``run.json`` is of other names."""
        stored = self._written_config()
        return stored != replace_old_names(stored)

    def _written_config(self) -> dict[str, Any]:
        if not self.config_file.is_file():
            raise UserError(f"{self.path}: no config.yaml in it, expected the folder of a training run")
        stored = read_yaml(self.config_file)
        if not isinstance(stored, dict):
            raise UserError(f"{self.config_file}: cannot be read (expected a mapping)")
        return {str(key): value for key, value in stored.items()}

    def _remembered_modules(self) -> tuple[str, ...] | None:
        return remembered_modules(self.path, self.config_file, self.record().get("id"))

    def dataset_config(self, trust: Collection[str] = ()) -> DictConfig | None:
        """Returns the data set that the run was trained with; None if the folder has no config or names no data set.

        Args:
            trust: See `config`.
        """
        dataset = self.config(trust).get("dataset") if self.config_file.is_file() else None
        return dataset if isinstance(dataset, DictConfig) else None

    def task_config(self, trust: Collection[str] = ()) -> DictConfig | None:
        """Returns the translation task of the data set, checked; None without one.

        Args:
            trust: See `config`.
        """
        dataset = self.dataset_config(trust)
        task = None if dataset is None else dataset.get("task")
        if task is None:
            return None
        if not isinstance(task, DictConfig) or "_target_" not in task:
            raise UserError(f"{self.config_file}: dataset.task: expected a _target_, or null")
        self.check_part(OmegaConf.to_container(task), "dataset.task")
        return task

    def domain(self) -> str | None:
        """Returns the domain of the data that the run was trained with; None if it is unknown.

        Runs of version 0.1 do not name it; for them it is that of the class of the data set, if the class has one.
        """
        config = self.stored_config() if self.config_file.is_file() else {}
        for section, key in (("dataset", "domain"), ("domain", "name")):
            part = config.get(section)
            if isinstance(part, dict) and part.get(key) is not None:
                return check_domain_name(f"{self.config_file}: {section}.{key}", part[key])
        dataset = config.get("dataset")
        name = str(dataset.get("_target_")).rpartition(".")[2] if isinstance(dataset, dict) else ""
        return next((domain for part, domain in _DOMAIN_OF_DATA.items() if part in name), None)

    def metrics(self) -> dict[str, float]:
        """Returns the content of ``metrics.json``; empty if the run has not finished."""
        return read_json_object(self.metrics_file)

    def record(self) -> dict[str, Any]:
        """Returns the content of ``run.json``; empty without one.

        ``command`` is the hash of the command, ``wandb_id`` the run's id at Weights & Biases, ``finished_steps`` the
        number of steps of a run that has finished, ``distances`` what its last validation reached, see
        `methods.common.reached_distances`, ``id`` the name of the note about a run that was trained here.
        """
        return read_json_object(self.record_file)

    def update_record(self, **entries: Any) -> None:
        """Adds entries to ``run.json``."""
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.record_file) as temporary:
            temporary.write_text(json_text({**self.record(), **entries}), encoding="utf-8")

    def write_origin(self, config: dict[str, Any], command: str) -> None:
        """Writes what the run is computed from: the resolved config, the git revision and the versions.

        Args:
            config: Plain containers.
            command: Hash of the command, for ``run.json``.
        """
        self.update_record(command=command)
        with atomic_write(self.config_file) as temporary:
            OmegaConf.save(OmegaConf.create(config), temporary)
        if identity := remember_run(self.path, self.config_file, config):
            self.update_record(id=identity)
        versions = {"python": platform.python_version(), "platform": platform.platform(), "git": git_revision()}
        versions.update({name: metadata.version(name) for name in _PACKAGES})
        with atomic_write(self.versions_file) as temporary:
            temporary.write_text(json_text(versions), encoding="utf-8")


def is_named(run: str | Path) -> bool:
    """Returns whether a run is given by the name of a shipped or published encoder, and not as a path."""
    return str(run) in _encoder_names()


def check_run(key: str, run: str | Path) -> None:
    """Checks that a run exists, without reading it.

    Args:
        key: Name of the setting, for errors.
        run: A run folder, a checkpoint in one, an official checkpoint, or the name of a shipped or published encoder.

    Raises:
        UserError: Anything else, with the names of the shipped encoders and the nearest name.
    """
    if is_named(run) or Path(run).exists():
        return
    names = _encoder_names()
    longer = [name for name in names if name.startswith(str(run))]
    nearest = (longer or get_close_matches(str(run), names, n=1, cutoff=0.0))[0]
    raise UserError(
        f"{key}={run}: no such run folder or checkpoint, nor the name of a trained encoder (shipped: "
        f"{', '.join(shipped_encoders())}; the nearest name is {nearest}); give one of them, or the folder that "
        "stylegan_inv.train printed"
    )


def checkpoint_of(run: str | Path) -> Path | None:
    """Returns the file that holds the weights of a run, which may be missing; None for weights to be downloaded."""
    if file := shipped_file(run):
        return file
    if is_named(run):
        return None
    folder = RunFolder.of(run)
    return Path(run) if folder is None else folder.checkpoint_file


def results_folder(run: str | Path, *parts: str) -> Path:
    """Returns a folder for results that are computed from a run: in the run folder, else in ``outputs/<name>``.

    Args:
        run: See `check_run`.
        *parts: Names of the folders in it.

    Raises:
        UserError: A link in the run folder leads out of it, where the results would be written.
    """
    folder = RunFolder.of(run)
    if folder is None:
        return Path("outputs", Path(run).stem, *parts)
    path = folder.path.joinpath(*parts)
    if not leads_into(path, folder.path):
        raise UserError(f"{path}: leads out of the run folder by a link; give output=<folder>")
    return path


def _encoder_names() -> list[str]:
    return [*shipped_encoders(), *(name for name, entry in TABLE.items() if entry.holds == "encoder")]


def git_revision() -> str | None:
    """Returns the revision of the checkout of this package, with ``+`` if files differ; None outside of git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
