"""Who takes part in ``python -m stylegan_inv.benchmark``, under which budget, and where their runs lie."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.paired.warm_start import PairedWarmStart
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.runtime.run_folder import RunFolder

TRAINED, DESCENT, REFERENCE = "trained", "descent", "reference"


@dataclass(frozen=True)
class Entrant:
    """One of those that are compared.

    Attributes:
        name: Of its run folder and its results.
        title: For people.
        kind: ``trained`` on many faces, ``descent`` on each face, or the ``reference`` that knows the truth.
        recipe: Overrides of ``stylegan_inv.train``, for those that are trained.
    """

    name: str
    title: str
    kind: str = TRAINED
    recipe: tuple[str, ...] = ()


ENTRANTS = (
    Entrant("psp_synthfaces", "pSp", TRAINED, ("experiment=psp_synthfaces",)),
    Entrant("e4e_synthfaces", "e4e", TRAINED, ("experiment=e4e_synthfaces",)),
    Entrant("restyle_synthfaces", "ReStyle", TRAINED, ("experiment=restyle_synthfaces",)),
    Entrant("restyle_e4e_synthfaces", "ReStyle over e4e", TRAINED, ("experiment=restyle_e4e_synthfaces",)),
    Entrant("interestyle_synthfaces", "IntereStyle", TRAINED, ("experiment=interestyle_synthfaces",)),
    # To compare IntereStyle with, which sees covered faces in training too.
    Entrant(
        "restyle_covered", "ReStyle + obstacles", TRAINED, ("experiment=restyle_synthfaces", "dataset.obstacles=0.5")
    ),
    Entrant("projector", "projector", DESCENT),
    Entrant("image2stylegan", "Image2StyleGAN", DESCENT),
    Entrant("image2stylegan_pp", "Image2StyleGAN++", DESCENT),
    Entrant("pti", "PTI", DESCENT),
    Entrant("true_factors", "true factors (reference)", REFERENCE),
)
BY_NAME = {entrant.name: entrant for entrant in ENTRANTS}


@dataclass(frozen=True)
class Budget:
    """What each entrant is given.

    The recipes give every trained one 16,000 passes of encoder and generator: 2,000 steps of 8 images in one pass, or
    400 steps of 8 images in five.

    Attributes:
        faces: Held-out faces that trained methods are scored on.
        descent_faces: The first so many of them, for methods that need seconds for each.
        edited: The first so many, at most, whose codes are edited.
        training: Overrides for every training.
        descents: Method -> overrides.
    """

    faces: int = 500
    descent_faces: int = 12
    edited: int = 100
    training: tuple[str, ...] = ()
    descents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def faces_of(self, entrant: Entrant) -> int:
        """How many faces it is scored on."""
        return min(self.faces, self.descent_faces) if entrant.kind == DESCENT else self.faces


_QUICK_TRAINING = ("trainer.max_steps=2", "trainer.val_check_interval=2", "dataset.batch_size=2", "dataset.val_size=4")
#: For trying it out: every part runs, no figure means anything.
QUICK = Budget(
    4,
    2,
    4,
    (*_QUICK_TRAINING, "dataset.val_batch_size=2", "callbacks.panels.images=2"),
    {
        "projector": ("method.steps=3",),
        "image2stylegan": ("method.steps=3",),
        "image2stylegan_pp": ("method.stages.w.steps=3", "method.stages.noise.steps=3"),
        "pti": ("method.start.steps=3", "method.start.lr=0.1", "method.steps=3"),
    },
)


def train(entrant: Entrant, seed: int, run: Path, budget: Budget) -> None:
    """Train a run that has no figures yet, as a user would; one that was interrupted goes on.

    Raises:
        UserError: The training failed; what it said stands above.
    """
    if RunFolder(run).metrics_file.is_file():
        return
    arguments = [*entrant.recipe, f"seed={seed}", f"hydra.run.dir={run}", "logger=csv", *budget.training]
    print(f"python -m stylegan_inv.train {' '.join(arguments)}", flush=True)
    if subprocess.run([sys.executable, "-m", "stylegan_inv.train", *arguments]).returncode:
        raise UserError(f"{run}: training {entrant.title} failed, see above; the same command goes on from there")


class TrueFactors:
    """No method but their bound: the code of W that the generator's training gave to a face's true factors.

    It has the face that an obstacle hides, which no method can see.
    """

    device = torch.device("cpu")

    def __init__(self, generator: Generator) -> None:
        self.generator = generator

    @staticmethod
    def source(batch: Mapping[str, Tensor]) -> Tensor:
        """The normals (B, K) behind the faces."""
        return batch["normals"]

    @torch.no_grad()
    def invert(self, normals: Tensor) -> Inversion:
        """What the generator makes of them; what is no factor in z is drawn, always the same."""
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            z = PairedWarmStart.latents(normals, self.generator.z_dim)
        w = self.generator.mapping(z)
        return Inversion(w, self.generator.synthesis(w))
