"""Edits images: ``python -m stylegan_inv.edit run=outputs/... input=photos/ edit=smile edit.strength=[-3,0,3]``.

Without ``run`` and ``input``, random samples of ``generator`` are edited. Writes ``strip.png`` (or ``grid_*.png``),
``images/`` with each image in its own file and, with ``animation=gif``, ``animation.gif``. Errors in the input are
reported before an image is inverted or a file is written. Images that the method was not made for are marked in the
table and listed in ``warnings.json``, see `invert.input_warnings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from omegaconf import DictConfig

from stylegan_inv.config import entry_point, instantiate
from stylegan_inv.data.images.image_files import SUFFIXES, save_image
from stylegan_inv.edit.edit_sources import find_source
from stylegan_inv.edit.edited_images import Source
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import remove_warnings
from stylegan_inv.invert.output_folder import image_names
from stylegan_inv.latents.edits.base import Edit, ImageTable, UsesDirections
from stylegan_inv.utils.checks import real_number, true_or_false, whole_number
from stylegan_inv.utils.domains import check_domains
from stylegan_inv.utils.files import atomic_write, check_output
from stylegan_inv.utils.text import file_name_of, plain_name
from stylegan_inv.visualization.animation import check_animation, write_animation
from stylegan_inv.visualization.contact_sheet import contact_sheet

_ROWS_PER_PAGE = 64
#: Of a row in the name of a file, which a caption follows. File systems limit names to 255 bytes.
_MOST_NAME_BYTES = 160
#: A frame of a GIF lasts at most 655 s.
_LEAST_SECONDS, _MOST_SECONDS = 0.01, 600
#: Pixels of all frames of an animation, which are in memory at the same time: 48 GiB.
_MOST_PIXELS = 1 << 32


@dataclass
class Job:
    """Everything that is checked and loaded before the first file is written.

    Attributes:
        edit: The edit.
        source: The images that are edited.
    """

    edit: Edit
    source: Source


def prepare(cfg: DictConfig) -> Job:
    """Checks every input and loads the networks.

    Raises:
        UserError: An edit or an input that is wrong, or that do not fit each other.
    """
    check_animation(cfg.animation)
    whole_number("frames", cfg.frames, 2)
    real_number("seconds", cfg.seconds, _LEAST_SECONDS, _MOST_SECONDS)
    true_or_false("overwrite", cfg.overwrite)
    whole_number("cell", cfg.cell, 16)
    edit = instantiate(cfg.edit)
    if not isinstance(edit, Edit):
        raise UserError(f"edit: got {type(edit).__name__}, expected an edit, see stylegan_inv.latents.edits.base.Edit")
    source = find_source(cfg, edit.name)
    for direction in edit.directions if isinstance(edit, UsesDirections) else ():
        check_domains("the generator is", source.domain, {f"direction {direction.name}": direction}, cfg.any_domain)
    edit.check(source.generator, source.count, source.random)
    if cfg.animation is not None and not edit.has_animation:
        raise UserError(
            f"animation={cfg.animation}: edit={edit.name} has no animation with these settings; leave animation out"
        )
    if cfg.animation is not None and cfg.frames * source.count * source.generator.resolution**2 > _MOST_PIXELS:
        raise UserError(f"frames={cfg.frames}: of {source.count} images do not fit into the memory; give fewer")
    check_output(source.output, cfg.overwrite)
    return Job(edit, source)


@entry_point("edit", prepare)
def main(cfg: DictConfig, job: Job) -> None:
    """Writes the tables, the images and the animation."""
    inputs, output = job.source.load(), job.source.output
    output.mkdir(parents=True, exist_ok=True)
    marks = _warn(job.source, output)
    for table in job.edit.tables(inputs):
        _write_images(table, output)
        for path in _write_table(table, output, cfg.cell, marks):
            print(f"{'table:':<12}{path}")
    if cfg.animation is not None:
        frames = job.edit.frames(inputs, cfg.frames)
        path = write_animation(frames, output / f"animation.{cfg.animation}", cfg.seconds, job.edit.ping_pong)
        print(f"{'animation:':<12}{path}")
    print(f"{'images:':<12}{output / 'images'}")


def _write_images(table: ImageTable, output: Path) -> None:
    # The tables of a grid have the same row captions, so each has its own folder.
    folder = output / "images" / ("" if table.name == "strip" else _short_name(table.name))
    stems = [name.removesuffix(".png") for name in image_names([f"{_row_name(row)}.png" for row in table.rows])]
    for caption, images in table.columns.items():
        for stem, image in zip(stems, images, strict=True):
            save_image(image, folder / f"{stem}_{file_name_of(caption)}.png")


def _warn(source: Source, output: Path) -> dict[str, list[str]]:
    """Prints and writes the warnings about the input images; returns their captions by the name of the image."""
    remove_warnings(output)  # of an earlier result
    if source.warnings is None:
        return {}
    for line in source.warnings.lines():
        print(line)
    if (file := source.warnings.write(output)) is not None:
        print(f"{'warnings:':<12}{file}")
    return {source.warnings.names[index]: texts for index, texts in source.warnings.captions().items()}


def _write_table(table: ImageTable, output: Path, cell: int, marks: Mapping[str, Sequence[str]]) -> list[Path]:
    """Writes the pages of a table, with the captions of warnings by row; returns their files."""
    written = []
    for first in range(0, len(table.rows), _ROWS_PER_PAGE):
        rows = slice(first, first + _ROWS_PER_PAGE)
        columns = {name: images[rows] for name, images in table.columns.items()}
        names = table.rows[rows]
        sheet = contact_sheet(columns, row_captions=names, row_warnings=[marks.get(n, ()) for n in names], cell=cell)
        page = f"_{first // _ROWS_PER_PAGE + 1:03d}" if len(table.rows) > _ROWS_PER_PAGE else ""
        written.append(output / f"{_short_name(table.name)}{page}.png")
        with atomic_write(written[-1]) as temporary:
            sheet.save(temporary)
    return written


def _row_name(row: str) -> str:
    """Returns a file name for a row caption, without the suffix of an image file."""
    path = PurePosixPath(row)
    return _short_name(str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else row)


def _short_name(text: str) -> str:
    """Returns a file name that other words may follow: file systems limit names to 255 bytes."""
    return plain_name(text).encode()[:_MOST_NAME_BYTES].decode(errors="ignore")


if __name__ == "__main__":
    main()
