"""The methods that ``python -m stylegan_inv.benchmark`` compares, and the budget of each."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.parent_process import child_environment

#: Kinds of methods: trained on many faces, optimised for each face, or the reference that knows the true factors.
TRAINED, PER_IMAGE, REFERENCE = "trained", "per_image", "reference"


@dataclass(frozen=True)
class ComparedMethod:
    """A method of the comparison.

    Attributes:
        name: Name of its run folder and of its results.
        title: Name in tables and figures.
        kind: ``TRAINED``, ``PER_IMAGE`` or ``REFERENCE``.
        recipe: Overrides of ``stylegan_inv.train`` for a trained method.
    """

    name: str
    title: str
    kind: str = TRAINED
    recipe: tuple[str, ...] = ()


METHODS = (
    ComparedMethod("psp_synthfaces", "pSp", TRAINED, ("experiment=psp_synthfaces",)),
    ComparedMethod("e4e_synthfaces", "e4e", TRAINED, ("experiment=e4e_synthfaces",)),
    ComparedMethod("restyle_synthfaces", "ReStyle", TRAINED, ("experiment=restyle_synthfaces",)),
    ComparedMethod("restyle_e4e_synthfaces", "ReStyle over e4e", TRAINED, ("experiment=restyle_e4e_synthfaces",)),
    ComparedMethod("interestyle_synthfaces", "IntereStyle", TRAINED, ("experiment=interestyle_synthfaces",)),
    # A baseline for IntereStyle, whose training images are covered as well.
    ComparedMethod(
        "restyle_covered", "ReStyle + obstacles", TRAINED, ("experiment=restyle_synthfaces", "dataset.obstacles=0.5")
    ),
    ComparedMethod("projector", "projector", PER_IMAGE),
    ComparedMethod("image2stylegan", "Image2StyleGAN", PER_IMAGE),
    ComparedMethod("image2stylegan_pp", "Image2StyleGAN++", PER_IMAGE),
    ComparedMethod("pti", "PTI", PER_IMAGE),
    ComparedMethod("true_factors", "true factors (reference)", REFERENCE),
)
BY_NAME = {method.name: method for method in METHODS}


@dataclass(frozen=True)
class Budget:
    """Size of the trainings and of the test.

    By default a recipe trains with 16,000 passes of encoder and generator: 2,000 steps of 8 images with one pass, or
    400 steps of 8 images with five passes.

    Attributes:
        faces: Number of held-out faces that trained methods are scored on.
        per_image_faces: Number of faces for methods that optimise each face, which take seconds for each.
        edited_faces: Largest number of faces whose codes are edited.
        training: Overrides of every training.
        per_image: Method -> overrides of a method that optimises each face.
    """

    faces: int = 500
    per_image_faces: int = 12
    edited_faces: int = 100
    training: tuple[str, ...] = ()
    per_image: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def faces_of(self, compared: ComparedMethod) -> int:
        """Returns the number of faces that a method is scored on."""
        return min(self.faces, self.per_image_faces) if compared.kind == PER_IMAGE else self.faces


_QUICK_TRAINING = ("trainer.max_steps=2", "trainer.val_check_interval=2", "dataset.batch_size=2", "dataset.val_size=4")
#: Runs every part in about a minute; its numbers are meaningless.
QUICK = Budget(
    faces=4,
    per_image_faces=2,
    edited_faces=4,
    training=(*_QUICK_TRAINING, "dataset.val_batch_size=2", "callbacks.panels.images=2"),
    per_image={
        "projector": ("method.steps=3",),
        "image2stylegan": ("method.steps=3",),
        "image2stylegan_pp": ("method.stages.w.steps=3", "method.stages.noise.steps=3"),
        "pti": ("method.start.steps=3", "method.start.lr=0.1", "method.steps=3"),
    },
)


def train(compared: ComparedMethod, seed: int, run: Path, budget: Budget) -> None:
    """Trains a method with ``stylegan_inv.train``.

    A run that has ended is kept; an interrupted run continues.

    Raises:
        UserError: If the training fails.
    """
    if RunFolder(run).metrics_file.is_file():
        return
    arguments = [*compared.recipe, f"seed={seed}", f"hydra.run.dir={run}", "logger=csv", *budget.training]
    print(f"python -m stylegan_inv.train {' '.join(arguments)}", flush=True)
    command = [sys.executable, "-m", "stylegan_inv.train", *arguments]
    if subprocess.run(command, env=child_environment(signal.SIGTERM)).returncode:
        raise UserError(f"{run}: training {compared.title} failed, see above; the same command continues the run")
