"""Which images are trained on: official lists of names, or a division that keeps each person on one side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stylegan_inv.data.images.image_files import name_list, natural
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.name_lists import match, read_names, read_text, stem
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError


def listed_rows(source: Source, splits: Path, split: str) -> list[int]:
    """The rows of a split in the order of its list.

    Args:
        source: The images.
        splits: A JSON file ``{"train": ["a/1.png", ...], "val": ...}``, or a folder with ``train.txt``, ``val.txt`` ...
        split: Its name.

    Raises:
        UserError: No such split, a name twice, in two splits, or of an image that is not there.
    """
    lists = _read_lists(splits)
    if split not in lists:
        raise UserError(f"{splits}: has no split {split}, only {', '.join(sorted(lists)) or 'none'}")
    for other, names in lists.items():
        if other != split and (shared := sorted(set(names) & set(lists[split]))):
            raise UserError(
                f"{splits}: {len(shared)} images are in {other} and in {split}: {name_list(shared)}; expected one split"
            )
    exact = {name: row for row, name in enumerate(source.names)}
    if all(name in exact for name in lists[split]):
        return [exact[name] for name in lists[split]]
    return match(source, lists[split], "image", f"{split} images named in {splits}")


def _read_lists(splits: Path) -> dict[str, list[str]]:
    if splits.is_dir():
        lists = {file.stem: read_names(file) for file in sorted(splits.glob("*.txt"))}
        if not lists:
            raise UserError(f"{splits}: no train.txt, val.txt or test.txt here; expected lists of names")
        return lists
    content = read_json(read_text(splits).encode(), str(splits))
    if not isinstance(content, dict) or not all(
        isinstance(names, list) and all(isinstance(name, str) for name in names) for names in content.values()
    ):
        raise UserError(f'{splits}: expected {{"train": [names], "val": [names], ...}}')
    for split, names in content.items():
        check_names(splits, names, f"{split} images")
    return content


def identities(source: Source, by: str | Path) -> np.ndarray:
    """Who is on each image.

    Args:
        source: The images.
        by: ``folder``: images of one folder show one person. ``classes``: those of ``dataset.json``. Else a file with
            name and person in each line (as CelebA's ``identity_CelebA.txt``), or JSON ``{"name": "person"}``.

    Returns:
        (N,) text.

    Raises:
        UserError: An image without a person, or a file that is none of these.
    """
    if by == "folder":
        return np.array([name.rpartition("/")[0] for name in source.names])
    if by == "classes":
        if source.classes is None:
            raise UserError(f"{source.path}: has no classes (dataset.json); give identities=folder or a file")
        return source.classes.astype(str)
    path = Path(by)
    people = {stem(name): person for name, person in _read_people(path)}
    if missing := [name for name in source.names if stem(name) not in people]:
        raise UserError(f"{path}: no person for {len(missing)} of {len(source)} images: {name_list(missing)}")
    return np.array([people[stem(name)] for name in source.names])


def _read_people(path: Path) -> list[tuple[str, str]]:
    text = read_text(path)
    if text.lstrip().startswith("{"):
        content = read_json(text.encode(), str(path))
        if not all(isinstance(person, (str, int)) for person in content.values()):
            raise UserError(f'{path}: expected {{"name": "person"}}')
        return [(name, str(person)) for name, person in content.items()]
    people = []
    for number, line in enumerate(text.splitlines(), start=1):
        fields = line.replace(",", " ").replace("\t", " ").rsplit(maxsplit=1)
        if not fields:
            continue
        if len(fields) != 2:
            raise UserError(f"{path}, line {number}: got {ascii(line)[:60]}, expected a name and a person")
        people.append((fields[0].strip(), fields[1]))
    return people


def hold_out(people: Sequence[str] | np.ndarray, count: int) -> np.ndarray:
    """Choose whole persons, the last ones by name, until they have at least ``count`` images: (N,) bool."""
    people = np.asarray(people)
    held = np.zeros(len(people), dtype=bool)
    for person in sorted(set(people.tolist()), key=lambda name: natural(Path(name)), reverse=True):
        if held.sum() >= count:
            break
        held |= people == person
    return held
