"""Runs ``python -m stylegan_inv.<module>`` with the files of the cache in place of the published weights.

    python -m tests.rehearsal.with_stand_ins train experiment=psp_ffhq …

A file of the cache must have the size and the hash that were published; stand-ins cannot have them.
"""

from __future__ import annotations

import dataclasses
import runpy
import sys

from stylegan_inv.weights import table
from stylegan_inv.weights.download import cache_folder


def main() -> None:
    """Forgets the sizes and hashes of the files that are in the cache, and runs the command."""
    for name, entry in table.TABLE.items():
        if (cache_folder() / entry.file).is_file():
            table.TABLE[name] = dataclasses.replace(entry, size=None, sha256=None)
    module = f"stylegan_inv.{sys.argv[1]}"
    sys.argv = [module, *sys.argv[2:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
