"""Prepare data: align photographs, make masks, pack images into one file, verify them.

    python -m stylegan_inv.prepare align  photos/ faces/ --size 1024
    python -m stylegan_inv.prepare masks  labels faces_labels/ masks/ --classes 1 2 17 --dilate 8
    python -m stylegan_inv.prepare pack   faces/ faces.zip --resolution 256
    python -m stylegan_inv.prepare verify faces.zip --report report.json

Every source is a folder (with those below), a zip, an LMDB, tar shards or a list of images. Nothing is lost silently:
what cannot be read or has no face is counted, named and in the report. A killed command continues when it is given
again.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from stylegan_inv.errors import UserError
from stylegan_inv.prepare import align_images as prepare_align
from stylegan_inv.prepare import make_masks as prepare_masks
from stylegan_inv.prepare import pack_images as prepare_pack
from stylegan_inv.prepare import verify_images as prepare_verify
from stylegan_inv.utils.command_line import report_error

PARTS = {"align": prepare_align, "masks": prepare_masks, "pack": prepare_pack, "verify": prepare_verify}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UserError: It is not one.
    """
    parser = _Parser(
        prog="python -m stylegan_inv.prepare",
        description=(__doc__ or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="{" + ",".join(PARTS) + "}")
    for name, module in PARTS.items():
        words = (module.__doc__ or "").split(": ", 1)[1].strip()
        part = parts.add_parser(name, help=words, description=words)
        module.arguments(part)
        part.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; 0 for none but this")
    parsed = parser.parse_args(arguments)
    if parsed.workers < 0:
        parser.error(f"--workers {parsed.workers}: expected 0 or more")
    return parsed


def main(arguments: list[str] | None = None) -> None:
    """The command line; bad input ends with one line and exit code 2."""
    try:
        parsed = options(arguments)
        sys.exit(PARTS[parsed.part].run(parsed))
    except UserError as error:
        sys.exit(report_error(error))
    except OSError as error:
        sys.exit(report_error(UserError(f"{error.filename or 'writing'}: {error.strerror or error}")))


if __name__ == "__main__":
    main()
