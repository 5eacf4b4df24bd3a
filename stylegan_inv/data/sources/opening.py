"""Opens a path (a folder, a zip, an LMDB, tar shards, an image or a list of files) as a source of images."""

from __future__ import annotations

from pathlib import Path

from stylegan_inv.data.images.image_files import first_image, is_image
from stylegan_inv.data.sources.folder_source import FolderSource
from stylegan_inv.data.sources.lmdb import open_lmdb
from stylegan_inv.data.sources.name_lists import read_paths
from stylegan_inv.data.sources.shards import find_shards, open_shards
from stylegan_inv.data.sources.source import Source
from stylegan_inv.data.sources.zip import ZipSource
from stylegan_inv.errors import UserError
from stylegan_inv.utils.text import readable


def open_source(path: str | Path | Source, resolution: int = 256) -> Source:
    """Opens a path as a source of images.

    Args:
        path: A folder of images (with its subfolders), a folder of tar shards, a shard, a pattern of shards
            (``train-{000..009}.tar`` or ``train-*.tar``), a zip, an LMDB, an image, or a text file with the path of an
            image in each line. A source is returned unchanged.
        resolution: Resolution to read from sources that hold each image in several sizes.

    Raises:
        UserError: The path does not exist, holds no images, or is an archive that is damaged or unsafe.
    """
    if isinstance(path, Source):
        return path
    if shards := find_shards(path):
        _check_alone(Path(path), f"{len(shards)} .tar files", "*.tar")
        return open_shards(Path(path), shards)
    path = Path(path)
    if (path / "data.mdb").is_file():
        _check_alone(path, "an LMDB", "data.mdb")
    if (
        (path / "data.mdb").is_file()
        or path.suffix.lower() == ".mdb"
        or (path.is_file() and path.suffix.lower() == ".lmdb")
    ):
        return open_lmdb(path, resolution)
    if not path.is_file():
        return FolderSource(path)
    if is_image(path.name):
        return FolderSource(path.parent, [path])
    if path.suffix.lower() in (".txt", ".lst", ".list"):
        return FolderSource(path.parent, read_paths(path))
    if path.suffix.lower() == ".zip":
        return ZipSource(path)
    raise UserError(
        f"{path}: is a {path.suffix or 'file without suffix'}, expected a folder of images, a .zip, an LMDB, .tar "
        "shards or a .txt with one path per line"
    )


def _check_alone(folder: Path, what: str, pattern: str) -> None:
    """Raises a UserError if a folder holds an archive and images, which would be left out without a word."""
    if folder.is_dir() and (image := first_image(folder)) is not None:
        raise UserError(
            f"{folder}: holds {what} and images such as {readable(image.name)}; give {folder / pattern} for the first, "
            "or move them for the images"
        )
