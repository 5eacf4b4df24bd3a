"""Makes the images of experiments/synthfaces_edits: python experiments/run_edits.py [folder of a run].

Edits of inverted faces need a run, such as that of ``make demo``; edits of random samples need none.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

from pages import command

PAGE = Path(__file__).parent / "synthfaces_edits"
SAMPLES = {
    "smile": ["edit=smile", "samples=3"],
    "age": ["edit=age", "samples=3"],
    "gender": ["edit=gender", "samples=3"],
    "pose": ["edit=pose", "samples=3"],
    "eyeglasses": ["edit=eyeglasses", "samples=3"],
    "combined": ["edit=age", "edit.also={eyeglasses: 2, smile: 2}", "edit.strength=[-2,0,2]", "samples=3"],
    "grid": ["edit=age", "edit.grid={pose: [-1.5,0,1.5]}", "edit.strength=[-2,-1,0,1,2]", "samples=1", "seed=2"],
    "mix": ["edit=mix", "samples=5"],
    "morph": ["edit=morph", "samples=4", "seed=2", "animation=gif", "frames=32"],
    "truncate": ["edit=truncate", "samples=3"],
    "scale": ["edit=truncate", "edit.layers=fine", "edit.psi=[1,0,-1]", "samples=3"],
}
INVERTED = {
    "inverted_smile": ["edit=smile", "input=synthfaces:0-2"],
    "inverted_age": ["edit=age", "input=synthfaces:0-2"],
    "inverted_mix": ["edit=mix", "input=synthfaces:0-2"],
}


def run_edit(name: str, arguments: list[str]) -> None:
    """Runs one command and keeps its table and animation as ``<name>.png`` and ``<name>.gif``."""
    with tempfile.TemporaryDirectory() as folder:
        command("edit", *arguments, "cell=112", f"output={folder}/out")
        (table,) = Path(folder, "out").glob("*.png")
        shutil.copyfile(table, PAGE / f"{name}.png")
        for animation in Path(folder, "out").glob("animation.*"):
            shutil.copyfile(animation, PAGE / f"{name}{animation.suffix}")


def main() -> None:
    """Edits random samples, and with a run inverted faces."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", help="run folder whose method inverts the faces")
    parser.add_argument(
        "--only", nargs="+", choices=[*SAMPLES, *INVERTED], default=[*SAMPLES, *INVERTED], metavar="NAME"
    )
    options = parser.parse_args()
    for name in options.only:
        if name in SAMPLES:
            run_edit(name, SAMPLES[name])
        elif options.run is not None:
            run_edit(name, [f"run={options.run}", *INVERTED[name]])


if __name__ == "__main__":
    main()
