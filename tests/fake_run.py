"""A run folder that takes no training: a tiny random generator and a method with two known steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from stylegan_inv.generators import Generator, save_generator
from stylegan_inv.methods.common.base import Inversion, Step
from stylegan_inv.methods.common.reached_distances import ReachedDistances
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.trust.remembered_runs import remember_run

RESOLUTION = 16


class TwoSteps(TrainedMethod):
    """Step 1 finds half of the image, step 2 all of it; the codes hold the image's mean colour."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self.scale = torch.nn.Parameter(torch.ones(1))

    def invert(self, images: Tensor) -> Inversion:
        colour = images.mean((2, 3))
        w = torch.zeros(len(images), self.generator.num_ws, self.generator.w_dim)
        w[:, :, :3] = colour[:, None]
        steps = [Step(w / 2, images / 2), Step(w * self.scale, images)]
        return Inversion(steps[-1].w, steps[-1].image, steps=steps)


class Nights(TwoSteps):
    """Reconstructs dark images, and loses what is brighter than grey."""

    def invert(self, images: Tensor) -> Inversion:
        found = super().invert(images)
        return Inversion(found.w, images.clamp(max=0.0))


class Diverged(TwoSteps):
    """Finds nothing, as an optimisation that has diverged."""

    def invert(self, images: Tensor) -> Inversion:
        found = super().invert(images)
        return Inversion(found.w * torch.nan, found.image * torch.nan)


def make_run(folder: Path, kind: str = "TwoSteps", reached: ReachedDistances | None = None) -> Path:
    """Write ``config.yaml`` and ``checkpoints/last.ckpt`` as a training would; returns the folder."""
    (folder / "checkpoints").mkdir(parents=True)
    generator = Generator(RESOLUTION, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    save_generator(generator, folder / "generator.safetensors")
    node = {
        "_target_": f"tests.fake_run.{kind}",
        "generator": {
            "_target_": "stylegan_inv.generators.load_generator",
            "source": str((folder / "generator.safetensors").resolve()),
        },
    }
    config = {"method_name": "two_steps", "method": node, "dataset": {"resolution": RESOLUTION, "domain": "synthfaces"}}
    write_config(folder, config)
    checkpoint = {"state_dict": {"scale": torch.ones(1)}, "method": kind}
    if reached is not None:
        checkpoint["reached"] = reached.to_plain()
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    return folder


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Writes ``config.yaml`` and notes that the run may name the class above, as a training does."""
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    RunFolder(folder).update_record(id=remember_run(folder, folder / "config.yaml", config))
