"""Builds the API pages from the docstrings: ``make docs`` writes them to ``build/docs``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pdoc
from pdoc import extract

import stylegan_inv

REPOSITORY = Path(__file__).resolve().parents[1]


def modules() -> list[str]:
    """Returns the modules to document; commands are documented by ``--help`` and the README."""
    found = [module.name for module in walk_packages(stylegan_inv.__path__, "stylegan_inv.")]
    return ["stylegan_inv", *(name for name in found if "__main__" not in name and "hydra_plugins" not in name)]


def build(output: Path) -> None:
    """Writes the pages of all modules below ``output``."""
    names = modules()
    for name in names:
        # pdoc looks at what a package already holds, and lazy packages hold a name once it has been asked for.
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            setattr(module, public, getattr(module, public))
    pdoc.render.configure(docformat="google", footer_text=f"stylegan_inv {stylegan_inv.__version__}")
    specifications: list[str] = []
    covered: set[str] = set()
    for name in names:
        # pdoc follows a package into its modules, except where ``__all__`` lists other names.
        if name not in covered:
            specifications.append(name)
            covered.update(extract.walk_specs([name]))
    pdoc.pdoc(*specifications, "!.*hydra_plugins", "!.*__main__", output_directory=output)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "build" / "docs")
