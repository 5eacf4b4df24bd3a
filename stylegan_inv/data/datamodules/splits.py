"""Splits of a dataset: lists of names, or validation images that show other people than the training images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stylegan_inv.data.images.image_files import name_list, natural_key
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.name_lists import match, read_names, read_text, stem
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError


def listed_rows(source: Source, splits: Path, split: str) -> list[int]:
    """Returns the indices of the images of a split, in the order of its list.

    Args:
        source: All images.
        splits: A JSON file ``{"train": ["a/1.png", ...], "val": ...}``, or a folder with ``train.txt``, ``val.txt`` ...
        split: Name of the split.

    Raises:
        UserError: There is no such split, or a name occurs twice, is in two splits or belongs to no image.
    """
    lists = _read_lists(splits)
    if split not in lists:
        raise UserError(f"{splits}: has no split {split}; got {', '.join(sorted(lists)) or 'none'}")
    for other, names in lists.items():
        if other != split and (shared := sorted(set(names) & set(lists[split]))):
            raise UserError(
                f"{splits}: {len(shared)} images are in both {other} and {split}: {name_list(shared)}; expected each "
                "in one split"
            )
    exact = {name: row for row, name in enumerate(source.names)}
    if all(name in exact for name in lists[split]):
        return [exact[name] for name in lists[split]]
    return match(source, lists[split], "image", f"{split} images named in {splits}")


def _read_lists(splits: Path) -> dict[str, list[str]]:
    if splits.is_dir():
        lists = {file.stem: read_names(file) for file in sorted(splits.glob("*.txt"))}
        if not lists:
            raise UserError(f"{splits}: has no train.txt, val.txt or test.txt; expected lists of names")
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
    """Returns the identity of the person in each image.

    Args:
        source: The images.
        by: ``folder`` if each folder holds the images of one person; ``classes`` for the classes of ``dataset.json``;
            otherwise a file with a name and a person in each line, as CelebA's ``identity_CelebA.txt``, or a JSON file
            ``{"name": "person"}``.

    Returns:
        Array (N,) of strings.

    Raises:
        UserError: An image has no identity, or the file has another format.
    """
    if by == "folder":
        return np.array([name.rpartition("/")[0] for name in source.names])
    if by == "classes":
        if source.classes is None:
            raise UserError(f"{source.path}: has no classes (dataset.json); give dataset.identities=folder or a file")
        return source.classes.astype(str)
    path = Path(by)
    people = {stem(name): person for name, person in _read_people(path)}
    if missing := [name for name in source.names if stem(name) not in people]:
        raise UserError(f"{path}: names no person for {len(missing)} of {len(source)} images: {name_list(missing)}")
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
    """Holds out all images of some people: the last ones by name, until there are at least ``count`` images.

    Args:
        people: Identity of each image, (N,).
        count: Least number of images to hold out.

    Returns:
        Array (N,) of bool, true for the images that are held out.
    """
    people = np.asarray(people)
    held_out = np.zeros(len(people), dtype=bool)
    for person in sorted(set(people.tolist()), key=lambda name: natural_key(Path(name)), reverse=True):
        if held_out.sum() >= count:
            break
        held_out |= people == person
    return held_out
