"""The recipes of the papers, and what a user says about each on the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.cli import REPOSITORY

#: Endings of the recipes' names: every other recipe is of the embedded world.
DATA = ("ffhq", "cars", "churches", "horses", "afhq_wild")
RECIPES = sorted(
    path.stem
    for path in (REPOSITORY / "conf" / "experiment").glob("*.yaml")
    if path.stem.endswith(tuple(f"_{name}" for name in DATA))
)
#: Recipes of generators for photographs: what a user adds to them.
GENERATORS = {
    "stylegan2_ffhq256": ("dataset.root={data}/ffhq",),
    "stylegan2_ffhq1024": ("dataset.root={data}/ffhq",),
    "stylegan2_transfer": (
        "generator.source=stylegan2-afhq-wild-512",
        *("dataset.root={data}/wild/train", "dataset.val_root={data}/wild/test", "dataset.resolution=512"),
    ),
}

#: What makes a training short without making it small: one image a step, two steps, one image of validation.
SHORT = (
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "+trainer.limit_val_batches=1",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "dataset.batch_size=1",
    "dataset.val_batch_size=1",
    "dataset.num_workers=0",
    "callbacks.panels.images=1",
    "callbacks.progress=null",
    "logger=csv",
)
#: CelebA-HQ as it is distributed, on which the papers evaluate faces.
CELEBA_HQ = ("dataset=celeba_hq", "dataset.root={data}/CelebAMask-HQ", "dataset.check_sizes=false")


@dataclass(frozen=True)
class Rehearsal:
    """What a user adds to ``experiment=<name>``. ``{data}`` is replaced by the folder of the data sets.

    Attributes:
        train: Overrides of the training.
        evaluate: Overrides of the evaluation.
        metrics: Columns that the evaluation must have.
        resolution: Side length of the generator's images, in pixels.
        num_ws: Number of codes of an image.
    """

    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    metrics: frozenset[str]
    resolution: int

    @property
    def num_ws(self) -> int:
        return 2 * self.resolution.bit_length() - 4


#: Metrics of the evaluation of every domain but the embedded one.
LPIPS_METRICS = frozenset(("mse", "psnr", "ssim", "ms_ssim", "w_distance", "w_spread", "lpips_alex", "lpips_vgg"))
FFHQ, CELEBA_HQ_TEST = "dataset.root={data}/ffhq", "dataset.val_root={data}/celeba_hq/test"


def _faces(*train: str) -> Rehearsal:
    return Rehearsal(train, CELEBA_HQ, LPIPS_METRICS | {"id", "id_training"}, 1024)


def _objects(resolution: int, *train: str) -> Rehearsal:
    return Rehearsal(train, (), LPIPS_METRICS, resolution)


def _folders(name: str) -> tuple[str, str]:
    return f"dataset.root={{data}}/{name}/train", f"dataset.val_root={{data}}/{name}/test"


CARS = ("dataset.root={data}/stanford_cars", "dataset.check_sizes=false")
#: Recipes whose row is not in the page yet: their networks of 300 million weights and more take most of the memory.
NOT_MEASURED = ("hyperinverter_ffhq", "hyperstyle_ffhq")
REHEARSALS = {
    "e4e_cars": _objects(512, *CARS),
    "e4e_churches": _objects(256, *_folders("church")),
    "e4e_ffhq": _faces(FFHQ, CELEBA_HQ_TEST),
    "fse_ffhq": _faces(
        *(FFHQ, CELEBA_HQ_TEST, "encoder.pretrained={data}/networks/iresnet50.pth"),
        "loss.landmark.path={data}/networks/bisenet.pth",
    ),
    "e4e_horses": _objects(256, *_folders("horse")),
    "hfgi_ffhq": _faces(FFHQ, CELEBA_HQ_TEST),
    "hyperinverter_ffhq": _faces(
        *(FFHQ, CELEBA_HQ_TEST, "generator=stylegan2_ffhq_config_f"),  # that of the start's stand-in
        "method.adversary.discriminator.source=stylegan2-ffhq-1024",
    ),
    "hyperstyle_ffhq": _faces(FFHQ, CELEBA_HQ_TEST),
    "interestyle_ffhq": _faces(FFHQ, CELEBA_HQ_TEST, "dataset.mask_root={data}/ffhq_masks"),
    "psp_ffhq": _faces(FFHQ, CELEBA_HQ_TEST, "generator=stylegan2_ffhq1024"),  # NVIDIA's layout
    "restyle_e4e_ffhq": _faces(FFHQ, CELEBA_HQ_TEST),
    "restyle_psp_afhq_wild": _objects(512, *_folders("wild")),
    "restyle_psp_cars": _objects(512, *CARS),
    "restyle_psp_churches": _objects(256, *_folders("church")),
    "restyle_psp_ffhq": _faces(
        *("dataset=ffhq_celeba_hq", FFHQ, "dataset.val_root=null"),
        *("dataset.celeba_hq_root={data}/CelebAMask-HQ", "dataset.check_sizes=false"),
    ),
    "sfe_ffhq": _faces(
        *(FFHQ, CELEBA_HQ_TEST, "encoder.pretrained={data}/networks/iresnet50.pth"),
        "method.directions=[{data}/networks/direction.pt]",
    ),
}


def filled(overrides: tuple[str, ...], world: Path) -> list[str]:
    """Returns overrides with the folder of the stand-ins."""
    return [override.format(data=world / "data") for override in overrides]
