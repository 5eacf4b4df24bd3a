"""Every command of the README, the contributing guide, the experiments' pages and the assets' cards runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli import REPOSITORY
from tests.documentation.files import RUN, write_examples, write_reader_files, write_run
from tests.documentation.pages import (
    EMBEDDED,
    PAGES,
    SMALL_GAN,
    SMALL_SCRIPTS,
    SMALL_SYNTHFACES,
    SMALL_TRAINING,
    TRAIN,
    commands,
)
from tests.forks import run_fork

#: Patterns of names in commands that a reader replaces; these are no commands.
PLACEHOLDER = re.compile(r"<(command|name)>")
#: Published files, which a small one of the same origin stands for.
OTHERS_FILE = re.compile(r"^run=(hfgi|fse|sfe|hyperstyle|hyperinverter)-ffhq$")
#: One pair without training.
MATRIX = ("matrix", "--quick", "--seeds", "0", "--embedders", "psp", "--refiners", "noise")
#: Page -> the runs that its commands continue with, and how they are trained.
RUNS = {
    "psp_segmentation_synthfaces": {f"outputs/psp/{RUN}": ("experiment=psp_segmentation_synthfaces",)},
    "psp_sketch_synthfaces": {f"outputs/psp/{RUN}": ("experiment=psp_sketch_synthfaces",)},
    "stylegan2_ffhq256": {f"outputs/stylegan2/{RUN}": ("method=stylegan2", "dataset=synthfaces")},
    "stylegan2_synthfaces32": {"outputs/stylegan2/run": ("experiment=stylegan2_synthfaces32", *SMALL_SYNTHFACES)},
    "pti_synthfaces": {"outputs/e4e/run": ("method=e4e",)},
    "hfgi_synthfaces": {"outputs/hfgi/run": ("method=hfgi",)},
    "progressive_synthfaces": {
        "RUN_FROM_THE_START": ("experiment=adain_synthfaces",),
        "RUN_GROWN": ("experiment=progressive_synthfaces",),
    },
    "psp_toonify_synthfaces": {
        f"outputs/restyle/{RUN}": ("method=restyle",),
        "outputs/restyle/2026-11-21_10-45-00": ("method=restyle",),
    },
}
SECONDS = 400
#: Pages whose commands take many seconds even in their quick form; `make test-long` runs them.
LONG = (
    *("", "benchmark", "image2stylegan_pp_synthfaces", "pti_synthfaces", "speed", "synthfaces_edits"),
    *("progressive_synthfaces", "psp_sketch_synthfaces", "psp_toonify_synthfaces", "synthfaces_directions"),
    *("shipped_encoders", "stylegan2_comparison", "stylegan2_ffhq256", "stylegan2_transfer"),
)
#: Application of Image2StyleGAN++ -> its stages, where they are not w and noise.
STAGES = {
    "feature_transfer": ("w",),
    "local_style": ("embed", "style", "noise"),
    "scribble": ("embed", "scribble", "noise"),
}


def quick(words: list[str]) -> list[str]:
    """Returns a command with the options that make it small."""
    program, *arguments = (re.sub(r"(?<![\w/])/data/", "data/", word).replace("<run>", "run") for word in words)
    arguments = ["experiments/benchmark" if word == "FOLDER" else word for word in arguments]
    module = program.removeprefix("stylegan_inv.")
    if program in SMALL_SCRIPTS:
        arguments += SMALL_SCRIPTS[program]
        if program.endswith("measure_optimisation.py") and "image2stylegan_pp" not in arguments:
            arguments += [*["--only", "projector"] * ("--only" not in arguments), "--set", "method.steps=2"]
        return [program, *arguments]
    if module == "train":
        return [program, *_quick_training(arguments)]
    if module == "invert" and any(word.startswith("method=") for word in arguments):
        return [program, *arguments, *_quick_optimisation(arguments), "device=cpu", "overwrite=true"]
    if module in ("edit", "invert"):
        arguments = [re.sub(OTHERS_FILE, "run=e4e_ffhq_encode.pt", word) for word in arguments]
        return [program, *arguments, "device=cpu", "overwrite=true"]
    if module == "prepare" and "align" in arguments:  # the detector is an extra
        return [program, *arguments, "--landmarks", "landmarks.json", "--size", "64"]
    if module == "evaluate":
        # The run of the page was trained on SynthFaces.
        return [program, *arguments, "device=cpu", "max_images=2", "metrics=image", "any_domain=true"]
    if module == "benchmark":
        return [program, *_quick_benchmark(arguments)]
    if module == "directions" and not arguments:
        return [program, "--help"]
    if module == "directions" and arguments[0] in ("interfacegan", "means"):
        return [program, *arguments, "--samples", "300", *["--fraction", "0.1"] * ("--fraction" not in arguments)]
    return [program, *arguments]


def _quick_training(arguments: list[str]) -> list[str]:
    if "--cfg" in arguments:
        return arguments
    # One job of a sweep is enough.
    sweep = any(word in ("-m", "--multirun") or word.startswith("sweep=") for word in arguments)
    if sweep:
        arguments = [re.sub(r"^([\w.]+=[^,\[{]+),[^\[{]*$", r"\1", word) for word in arguments]
    if any(word.startswith("sweep=") for word in arguments):
        arguments.append("hydra.sweeper.params={loss.perceptual.weight: 0.4}")
    more = [*TRAIN, *("trainer.devices=1",) * any(word.startswith("trainer=ddp") for word in arguments)]
    recipe = next((word for word in arguments if word.startswith("experiment=")), "")
    photographs = any(word.startswith("dataset.root=") for word in arguments)
    own_generator = any(word.startswith(("experiment=stylegan2_", "method=stylegan2")) for word in arguments)
    photographs = photographs and not own_generator
    more += [*EMBEDDED, "dataset.check_sizes=false"][: len(EMBEDDED) + ("cars" in recipe)] if photographs else []
    more += ["encoder.fusion=early"] * (photographs and "+task=segmentation" in arguments)
    more += ["dataset.val_size=2", "dataset.expected_images=null"] * ("dataset=ffhq" in arguments)
    if "preset=auto" in arguments:
        more += [word for word in SMALL_GAN if not word.startswith(("~", "dataset.expected"))] + ["metrics=image"]
    if not any(word.startswith("dataset.root=data/") for word in arguments):
        more.append("dataset.val_size=2" if photographs else "dataset.val_size=4")
    if "synthfaces_face" in recipe:
        more = [word for word in more if not word.startswith(("callbacks.panels", "dataset.val_size"))]
    for word, small in SMALL_TRAINING.items():
        if recipe.startswith(word):
            more += small
    return [*arguments, *more]


def _quick_optimisation(arguments: list[str]) -> list[str]:
    method = next(word.partition("=")[2] for word in arguments if word.startswith("method="))
    if method in ("dhr", "sam"):
        first = "method.coarse.steps=2" if method == "dhr" else "method.measure_steps=1"
        return [first, "method.steps=2"]
    if method == "image2stylegan_pp":
        application = next((word.partition("=")[2] for word in arguments if word.startswith("application=")), "")
        return [f"method.stages.{stage}.steps=2" for stage in STAGES.get(application, ("w", "noise"))]
    own_start = any(word.startswith("method.start=") for word in arguments)
    return ["method.steps=2", *["method.start.steps=2"] * (method == "pti" and not own_start)]


def _quick_benchmark(arguments: list[str]) -> list[str]:
    part = arguments[0] if arguments and not arguments[0].startswith("-") else "methods"
    if part == "methods":
        return [
            "methods",
            "--quick",
            "--seeds",
            "0",
            "--only",
            "psp_synthfaces",
            "projector",
            "--faces",
            "4",
            "--per-image-faces",
            "2",
        ]
    if part == "matrix":
        return [*MATRIX, "--faces", "3", "--per-image-faces", "1"]
    kept = arguments
    for option in ("--against", "--only"):  # clones of other repositories
        while option in kept:
            start = kept.index(option)
            end = next((k for k in range(start + 1, len(kept)) if kept[k].startswith("--")), len(kept))
            kept = kept[:start] + kept[end:]
    small = {
        "generator": ["--resolution", "16"],
        "data": ["--resolution", "64", "--file-resolution", "128", "--batch", "2"],
        "gan": SMALL_SYNTHFACES,
        "world": ["--seconds", "0.05"],
    }
    return [*kept, *small.get(part, []), *(["--repeats", "1"] if part not in ("world", "render") else [])]


def first_pages() -> dict[str, Path]:
    """Returns the page that a command is tested with: the first one that shows it, the overviews last."""
    found: dict[str, Path] = {}
    for page in sorted(PAGES, key=lambda page: page.name != "README.md" or page.parent.name == "experiments"):
        for command in commands(page):
            if not PLACEHOLDER.search(command.text):
                found.setdefault(command.text, page)
    return found


FIRST_PAGE = first_pages()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_reader_files(tmp_path)
    write_examples(tmp_path)
    return tmp_path


def _parameters() -> list[Any]:
    long = {REPOSITORY / "experiments" / name / "README.md" for name in LONG}
    pages = sorted(set(FIRST_PAGE.values()))
    return [pytest.param(page, marks=pytest.mark.long) if page in long else page for page in pages]


@pytest.mark.parametrize("page", _parameters(), ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands_of_a_page(page: Path, folder: Path) -> None:
    shown = [command for command in commands(page) if FIRST_PAGE.get(command.text) == page]
    assets = {path: path.read_bytes() for path in (REPOSITORY / "stylegan_inv" / "assets").rglob("*.safetensors")}
    if any("experiments/" in command.text or "FOLDER" in command.text for command in shown):
        shutil.copytree(REPOSITORY / "experiments", folder / "experiments")
    runs = dict(RUNS.get(page.parent.name, {}))
    if any(f"outputs/restyle/{RUN}" in command.text for command in shown):
        runs.setdefault(f"outputs/restyle/{RUN}", ("method=restyle",))
    for run, overrides in runs.items():
        write_run(folder, run, *overrides)
    for command in shown:
        done = run_fork(*quick(command.words), cwd=folder, timeout=SECONDS)
        assert all(path.read_bytes() == content for path, content in assets.items()), f"{command} changes the package"
        assert done.returncode == 0, (
            f"{command}\n{' '.join(quick(command.words))}\n{(done.stdout + done.stderr)[-3000:]}"
        )


def test_every_command_of_the_package_is_shown() -> None:
    shown = {command.words[0] for page in PAGES for command in commands(page)}
    package = REPOSITORY / "stylegan_inv"
    modules = {path.parent.name for path in package.glob("*/__main__.py")} | {"train", "convert"}
    assert {f"stylegan_inv.{module}" for module in modules} <= shown
