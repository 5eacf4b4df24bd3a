"""Finds the commands that the pages show, and says how each runs in seconds.

A command keeps what its page shows; options that make it small are appended. What a reader has to bring (photographs, a
trained run, somebody's weights, clones of other repositories) is replaced by small files that :mod:`.files` makes.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.cli import REPOSITORY

PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / ".github" / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "experiments").glob("**/README.md")),
    *sorted((REPOSITORY / "stylegan_inv" / "assets").glob("*.md")),
]
_COMMAND = re.compile(r"(?:python -m stylegan_inv\.|python experiments/|stylegan-inv )[^`]*")

#: What makes a training small. Later options win, so those of the page are kept unless they are named here.
TRAIN = (
    "trainer.max_steps=2",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "dataset.batch_size=2",
    "dataset.val_batch_size=2",
    "dataset.num_workers=0",
    "callbacks.panels.images=2",
    "callbacks.codes=null",  # a second for its figure
    "callbacks.progress=null",
    "logger=csv",
)
#: A generator of 32 px, and no Inception, which would be downloaded.
SMALL_GAN = (
    *("domain.network.channel_base=128", "domain.network.channel_max=8", "dataset.resolution=32"),
    *("dataset.expected_images=null", "dataset.val_size=2", "~metrics.fid50k_full", "method.samples=2"),
)
#: A GAN of SynthFaces, which are rendered first.
SMALL_SYNTHFACES = ("dataset.train_size=8", "dataset.batch_size=4", "dataset.val_size=8", "method.total_images=8")
#: Additional options of recipes and methods, by a word of the command.
SMALL_TRAINING = {
    "experiment=stylegan2_ffhq": SMALL_GAN,
    "experiment=stylegan2_synthfaces": SMALL_SYNTHFACES,
    "experiment=stylegan2_comparison": SMALL_SYNTHFACES,
    "experiment=stylegan2_transfer": ("~metrics.fid50k_full", "dataset.val_size=2"),
    "experiment=synthfaces_face_": ("dataset.people=4", "dataset.val_people=4", "dataset.batch_size=4"),
    "experiment=image2stylegan_pp": ("method.stages.w.steps=2", "method.stages.noise.steps=2"),
    "experiment=projector": ("method.steps=2",),
    "experiment=pti": ("method.steps=2", "method.start.steps=2"),
    "experiment=fse_ffhq": (
        "encoder.pretrained=null",
        "~loss.id",
        "~loss.landmark",
        "~loss.lpips",
        "dataset.resolution=64",
    ),
    "experiment=sfe_ffhq": (
        *("encoder.pretrained=null", "method.start=e4e_synthfaces", "method.feature_index=5"),
        *("method.directions=[smile]", "method.adversary=null", "~loss.lpips", "dataset.resolution=64"),
    ),
    "experiment=hyperstyle_ffhq": ("method.start=e4e_synthfaces",),
    "experiment=hyperinverter_ffhq": ("method.start=e4e_synthfaces", "method.adversary=null", "dataset.resolution=64"),
    "experiment=hfgi_ffhq": ("method.start=e4e_synthfaces", "method.layer=b32.conv0"),
    "experiment=dhr": ("method.steps=2", "method.weight_steps=1", "method.coarse.steps=2"),
    "experiment=sam": ("method.steps=2", "method.measure_steps=1"),
}
#: Options of the scripts in experiments/.
SMALL_SCRIPTS = {
    "experiments/run_inversion.py": (
        *("--quick", "--seeds", "0", "--only", "psp_synthfaces", "projector"),
        *("--faces", "4", "--per-image-faces", "2"),
    ),
    "experiments/run_translation.py": ("--only", "psp_sketch_synthfaces", "--steps", "2", "dataset.val_size=2"),
    "experiments/measure_optimisation.py": ("--images", "1", "--batch", "1"),
    "experiments/run_edits.py": ("--only", "smile", "inverted_age"),
    "experiments/shipped_encoders/make.py": ("--only", "psp_synthfaces", "--faces", "4", *TRAIN, "dataset.val_size=4"),
    "experiments/synthfaces_directions/make.py": ("made", "--pairs", "200", "--samples", "400", "--faces", "20"),
    "experiments/synthfaces_generator/score.py": ("--images", "50"),
    "experiments/gan_losses/gaussians.py": ("--steps", "2", "--seeds", "1"),
    "experiments/gan_results.py": ("--faces", "8"),
    "experiments/stylegan2_comparison/train_by.py": ("--set", *TRAIN, *SMALL_SYNTHFACES),
}
#: Photographs: the large networks and others' weights are replaced by the embedded ones.
EMBEDDED = ("domain=synthfaces", "any_domain=true", "generator.source=synthfaces64")


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        page: The page.
        text: What it shows, in one line.
    """

    page: Path
    text: str

    @property
    def words(self) -> list[str]:
        """The words that a shell makes of it, without ``python -m``."""
        words = shlex.split(self.text.replace("…", "x"))
        return words[2:] if words[:2] == ["python", "-m"] else words[1:]

    def __str__(self) -> str:
        return self.text


def commands(page: Path) -> list[Command]:
    """Returns the commands of a page in order: indented or fenced lines, and commands in backticks, each once."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found: dict[str, Command] = {}
    for line in text.splitlines():
        blocks = [line.strip()] if re.match(r"(?: {4,}|\t|\$ )", line) or line.startswith("python ") else []
        blocks += re.findall(r"`([^`]+)`", line)
        for block in blocks:
            if _COMMAND.match(block):
                shown = " ".join(re.sub(r"\s+#.*$", "", block).split())
                found.setdefault(shown, Command(page, shown))
    return list(found.values())
