"""Edit pictures: ``python -m stylegan_inv.edit run=outputs/... input=photos/ edit=smile edit.strength=[-3,0,3]``.

Without ``run`` and ``input`` random samples of ``generator`` are edited. Leaves ``strip.png`` (or ``grid_*.png``),
``images/`` with each picture by itself and, where asked for, ``film.gif`` or ``film.mp4``. Bad input is found before a
picture is inverted or a file is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from stylegan_inv.config import entry_point, instantiate
from stylegan_inv.data.images.image_files import SUFFIXES, save_image
from stylegan_inv.edit.subject_sources import Source, find_subjects
from stylegan_inv.errors import UserError
from stylegan_inv.latents.edits.subjects import Edit, Sheet, whole
from stylegan_inv.latents.saved_codes import check_output, picture_names
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.animation import check_animation, write_animation
from stylegan_inv.visualization.contact_sheet import contact_sheet

_ROWS = 64


@dataclass
class Job:
    """Everything that is checked and loaded before the first file is written."""

    edit: Edit
    source: Source


def prepare(cfg: DictConfig) -> Job:
    """Check every input and load the networks.

    Raises:
        UserError: an edit or inputs that do not work, alone or together.
    """
    check_animation(cfg.animation)
    whole(cfg.frames, "frames", 2)
    whole(cfg.cell, "cell", 16)
    edit: Any = instantiate(cfg.edit)
    source = find_subjects(cfg, edit.name)
    edit.check(source.generator, source.count, source.random)
    if cfg.animation is not None and not edit.films:
        raise UserError(f"animation={cfg.animation}: edit={edit.name} has no film as it is given; leave animation out")
    check_output(source.output, cfg.overwrite)
    return Job(edit, source)


@entry_point("edit", prepare)
def main(cfg: DictConfig, job: Job) -> None:
    """Make the tables and the film."""
    subjects, output = job.source.load(), job.source.output
    output.mkdir(parents=True, exist_ok=True)
    for sheet in job.edit.sheets(subjects):
        for path in _write_sheet(sheet, output, cfg.cell):
            print(f"{'table:':<10}{path}")
    if cfg.animation is not None:
        frames = job.edit.frames(subjects, cfg.frames)
        back = job.edit.there_and_back
        print(f"{'film:':<10}{write_animation(frames, output / f'film.{cfg.animation}', cfg.seconds, back)}")
    print(f"{'images:':<10}{output / 'images'}")


def _write_sheet(sheet: Sheet, output: Path, cell: int) -> list[Path]:
    """The table (in pages of 64 rows) and its pictures one by one; the files of the table."""
    # A grid is one subject's: the rows of another have the same captions.
    folder = output / "images" / ("" if sheet.name == "strip" else _file_name(sheet.name))
    stems = [name.removesuffix(".png") for name in picture_names([f"{_stem(row)}.png" for row in sheet.rows])]
    for caption, images in sheet.columns.items():
        for stem, image in zip(stems, images, strict=True):
            save_image(image, folder / f"{stem}_{_file_name(caption)}.png")
    written = []
    for start in range(0, len(sheet.rows), _ROWS):
        part: dict[str, Tensor] = {name: images[start : start + _ROWS] for name, images in sheet.columns.items()}
        picture = contact_sheet(part, row_captions=sheet.rows[start : start + _ROWS], cell=cell)
        page = f"_{start // _ROWS + 1:03d}" if len(sheet.rows) > _ROWS else ""
        written.append(output / f"{_file_name(sheet.name)}{page}.png")
        with atomic_write(written[-1]) as temporary:
            picture.save(temporary)
    return written


def _stem(row: str) -> str:
    """Of a row that is an image file, the name without its suffix."""
    path = PurePosixPath(row)
    return _file_name(str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else row)


def _file_name(text: str) -> str:
    """Text without what paths or shells take for something else."""
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in text)


if __name__ == "__main__":
    main()
