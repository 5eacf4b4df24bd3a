"""Prepare data: align photographs, make masks, pack images into one file, verify them.

    python -m stylegan_inv.prepare align  photos/ faces/ --size 1024
    python -m stylegan_inv.prepare masks  labels faces_labels/ masks/ --classes 1 2 17 --dilate 8
    python -m stylegan_inv.prepare pack   faces/ faces.zip --resolution 256
    python -m stylegan_inv.prepare verify faces.zip --report report.json

The source is a folder (read recursively), a zip file, an LMDB, tar shards or a list of images. Every image that cannot
be read or shows no face is counted, printed by name and listed in the report. An interrupted command continues when it
is run again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from stylegan_inv.prepare import align_images, make_masks, pack_images, verify_images
from stylegan_inv.utils.command_line import ArgumentParser, run, system_error, whole
from stylegan_inv.utils.text import STANDARD_OUTPUT


class Subcommand(Protocol):
    """What a module of this package that implements a subcommand defines."""

    DESCRIPTION: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the options of the subcommand to a parser."""

    def run(self, options: argparse.Namespace) -> int:
        """Runs the subcommand and returns the exit code."""


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "align": align_images,
    "masks": make_masks,
    "pack": pack_images,
    "verify": verify_images,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line.

    Args:
        arguments: The command line; None takes that of the process.

    Raises:
        UserError: An unknown subcommand or option, or a value of the wrong type.
    """
    parser = ArgumentParser(
        prog="python -m stylegan_inv.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="subcommand", required=True, metavar="{" + ",".join(SUBCOMMANDS) + "}")
    for name, module in SUBCOMMANDS.items():
        subparser = subparsers.add_parser(name, help=module.DESCRIPTION, description=module.DESCRIPTION)
        module.add_arguments(subparser)
        subparser.add_argument(
            "--workers",
            **whole(0, 1024),
            default=os.cpu_count() or 1,
            help="worker processes; 0 uses the main process only",
        )
    options = parser.parse_args(arguments)
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(lambda: _prepare(parse(arguments)))


def _prepare(options: argparse.Namespace) -> int:
    try:
        return int(SUBCOMMANDS[options.subcommand].run(options))
    except OSError as error:
        if error.filename == STANDARD_OUTPUT:
            raise
        raise system_error(error) from error


if __name__ == "__main__":
    main()
