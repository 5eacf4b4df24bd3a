"""Writes one HTML file about a run or a sweep.

    python -m stylegan_inv.report run=outputs/restyle/2026-11-21_10-30-00

The file holds metrics, images, charts, the worst images, evaluations, config and versions. What the run has not
written is omitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from stylegan_inv.config import entry_point
from stylegan_inv.errors import UserError
from stylegan_inv.report.folder_reader import FolderReader
from stylegan_inv.report.run_report import Sections, run_sections, sweep_sections
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import true_or_false
from stylegan_inv.utils.files import check_output_file
from stylegan_inv.visualization.html_page import is_page, write_page


@dataclass
class Job:
    """A report that is ready to be written.

    Attributes:
        title: Title of the page.
        sections: Heading -> parts.
        file: Path of the page.
        notes: Files that could not be read.
    """

    title: str
    sections: Sections
    file: Path
    notes: list[str]


def prepare(cfg: DictConfig) -> Job:
    """Reads the folder of a run or of a sweep.

    Raises:
        UserError: If there is nothing to report, or the output is not an HTML file, or exists and is no report.
    """
    true_or_false("overwrite", cfg.overwrite)
    folder = Path(cfg.run)
    if not folder.is_dir():
        raise UserError(f"run={folder}: no such folder; give the folder that stylegan_inv.train printed")
    is_sweep = (folder / "sweep.csv").is_file() or (folder / "multirun.yaml").is_file()
    reader = FolderReader(folder)
    sections = sweep_sections(reader) if is_sweep else run_sections(reader)
    file = Path(cfg.output) if cfg.output else folder / "report.html"
    if file.suffix.lower() != ".html":
        raise UserError(f"output={file}: expected a file name that ends in .html")
    check_output_file(f"output={file}", file, is_page, cfg.overwrite, "overwrite=true")
    return Job(cfg.title or _title(folder, is_sweep), sections, file, reader.notes)


def _title(folder: Path, is_sweep: bool) -> str:
    if is_sweep:
        return f"Sweep {folder.resolve().name}"
    try:
        method = RunFolder(folder).stored_config().get("method_name")
    except UserError:  # a damaged config, which the report shows as it is
        method = None
    return f"{method or 'run'}: {folder.resolve().name}"


def report(cfg: DictConfig, job: Job) -> None:
    """Writes the page and prints its path."""
    for note in job.notes:
        print(f"not shown: {note}")
    print(f"{'report:':<12}{write_page(job.title, job.sections, job.file)}")


main = entry_point("report", prepare)(report)

if __name__ == "__main__":
    main()
