"""The files of a run that a report shows, without a run."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image


def make_run(folder: Path) -> Path:
    """Writes the files of a small run."""
    for name in ("panels", "worst", "codes", "evaluation/test"):
        (folder / name).mkdir(parents=True)
    (folder / "config.yaml").write_text("method_name: restyle\nnote: <b>bold</b>\n")
    (folder / "versions.json").write_text(json.dumps({"torch": "2.4"}))
    figures = {"val/mse": 0.0123, "val/mse_step1": 0.5, "val/mse_step2": 0.0123, "seconds": 60.0}
    (folder / "metrics.json").write_text(json.dumps(figures))
    (folder / "metrics.csv").write_text(
        "step,train/loss/l2,lr/encoder,val/mse\n0,0.5,0.001,\n1,0.25,0.001,0.4\n2,0.125,0.0005,0.3\n"
    )
    for name in ("panels", "worst", "codes"):
        Image.new("RGB", (4, 4)).save(folder / name / "last.png")
    (folder / "worst" / "last.csv").write_text("step,image,mse\n3,007,0.9\n3,a<b.png,0.8\n")
    (folder / "codes" / "last.json").write_text(json.dumps({"step": 3, "images": 5}))
    one = {"mean": 0.5, "std": 0.1, "low": 0.4, "high": 0.6, "count": 9, "skipped": 1}
    evaluation = {"protocol": {"mse": "squared units"}, "counts": {"images": 9}, "sets": {"frechet": 1.5}}
    evaluation["metrics"] = {"mse": one, "mse_step1": one, "id": {**one, "mean": None, "low": None}}
    (folder / "evaluation" / "test" / "metrics.json").write_text(json.dumps(evaluation))
    return folder
