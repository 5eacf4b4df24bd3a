"""A new method costs one Python file and one YAML, outside the repository."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli import QUICK, REPOSITORY, run_cli

METHOD = '''
from torch import nn
from stylegan_inv.methods import Inversion, TrainedMethod


class OneShot(TrainedMethod):
    """Codes in a single pass, for the test."""

    def __init__(self, *, encoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder(num_ws=self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=3)

    def invert(self, images):
        w = self.average_codes(len(images)) + self.encoder(images)
        return Inversion(w, self.generator.synthesis(w))
'''

YAML = """
# @package _global_
method_name: one_shot
method:
  _target_: one_shot.OneShot
  generator: ${generator}
  encoder: ${encoder}
  loss: {_target_: stylegan_inv.config.build_loss_terms, _recursive_: false, terms: "${loss}"}
  optimizer: ${optimizer}
  metrics: ${metrics}
"""


def test_one_file_and_one_yaml_make_a_method(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "one_shot.py").write_text(METHOD)
    (tmp_path / "mine" / "method").mkdir(parents=True)
    (tmp_path / "mine" / "method" / "one_shot.yaml").write_text(YAML)
    arguments = ["--config-dir", "mine", "method=one_shot", *QUICK, "hydra.run.dir=run"]
    # `python -m` puts the working directory on the path, so one_shot.py is found beside the configs.
    result = run_cli("train", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["val/mse"] < 10 and "val/step_gain" not in metrics
    assert str(REPOSITORY) not in str(tmp_path)

    import sys

    from PIL import Image

    Image.new("RGB", (80, 100), (200, 150, 120)).save(tmp_path / "photo.png")
    inverted = run_cli("invert", "run=run", "input=photo.png", "output=inverted", cwd=tmp_path)
    assert inverted.returncode == 0, inverted.stderr
    assert (tmp_path / "inverted" / "latents.safetensors").is_file(), sys.path
