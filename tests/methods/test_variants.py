"""Options of the methods: composed as on the command line, trained for a step, and used to invert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR, build_loss_terms, instantiate, instantiate_method, plain
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, save_discriminator
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.psp import PSP

SMALL = ("encoder/backbone=ir_se_tiny", "encoder.backbone.channels=[8,8,8,8]", "encoder.backbone.units=[1,1,1,1]")


def trained(tmp_path: Path, *overrides: str) -> tuple[Any, Any, dict[str, float]]:
    """Returns config, method and logged values after one step."""
    data = ("dataset.train_size=8", "dataset.val_size=2", "dataset.batch_size=2")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[*data, f"paths.run_dir={tmp_path}", *overrides])
    method = instantiate_method(cfg.method)
    before = {name: value.detach().clone() for name, value in method.encoder.named_parameters()}
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(method, datamodule=instantiate(cfg.dataset))
    assert any(not torch.equal(before[name], value) for name, value in method.encoder.named_parameters())
    (tmp_path / "checkpoints").mkdir()
    trainer.save_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    OmegaConf.save(OmegaConf.create(plain(cfg)), tmp_path / "config.yaml")
    logged = {name.removeprefix("train/loss/"): float(value) for name, value in trainer.logged_metrics.items()}
    return cfg, method, logged


@pytest.mark.parametrize(
    ("overrides", "logged"),
    [
        (["method=psp", "encoder=single_w", *SMALL], {"l2"}),
        (["method=psp", "encoder=last_layer", *SMALL], {"l2"}),
        (["method=psp", "encoder=fpn", *SMALL], {"l2"}),
        (["method=psp", "+loss/term=[masked_id,mixing]"], {"masked_id", "mixing"}),
        (["method=restyle", "method.start=random", "method.iterations=2"], {"l2"}),
        (["method=restyle", "method.iterations=2", "+loss/term=adversarial"], {"adversarial", "discriminator", "r1"}),
        (
            ["method=e4e", "+loss/term=adversarial", "loss.adversarial.kind=nonsaturating"],
            {"adversarial", "discriminator"},
        ),
        (["method=interestyle", "method.start=random"], {"disentanglement"}),
        (["method=interestyle_released"], {"l2"}),
    ],
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else "",
)
def test_trains_and_inverts(overrides: list[str], logged: set[str], tmp_path: Path) -> None:
    _, method, values = trained(tmp_path, *overrides)
    assert logged | {"total"} <= values.keys() and all(torch.isfinite(torch.tensor(v)) for v in values.values())
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loaded = load_inverter(tmp_path)
    assert loaded.loss is None, "its networks are not needed to invert"
    torch.manual_seed(0)
    got = loaded.invert(images)
    torch.manual_seed(0)
    with torch.no_grad():
        torch.testing.assert_close(got.w, method.eval().invert(images).w, rtol=1e-4, atol=1e-4)
    if "encoder=single_w" in overrides:
        assert torch.equal(got.w, got.w[:, :1].expand_as(got.w))


def test_one_method_starts_from_the_results_of_another(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    _, first, _ = trained(tmp_path / "first", "method=psp")
    trained(tmp_path / "second", "method=restyle", "method.iterations=1", f"method.start={tmp_path}/first")
    loaded = load_inverter(tmp_path / "second")
    assert isinstance(loaded.start.network, PSP)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        begin = first.eval().invert(images)
        residual = loaded.encoder(torch.cat([images, begin.image], dim=1))
        torch.testing.assert_close(loaded.invert(images).w, begin.w + residual, rtol=1e-4, atol=1e-4)


def test_a_trained_discriminator_as_a_loss_term(tmp_path: Path) -> None:
    save_discriminator(Discriminator(64, channel_base=512), tmp_path / "d.safetensors")
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=["+loss/term=adversarial_from"])
        with pytest.raises(UserError, match=r"loss\.adversarial\.discriminator\.source was not given"):
            instantiate(cfg.method.loss)
        cfg = compose(
            "train",
            overrides=[
                "+loss/term=adversarial_from",
                f"loss.adversarial.discriminator.source={tmp_path}/d.safetensors",
            ],
        )
    term = instantiate(cfg.method.loss).terms["adversarial"]
    assert term.discriminator.resolution == 64 and term.lr == 0


def test_identity_and_moco_together_are_refused() -> None:
    nodes = {
        "id": {"_target_": "tests.methods.test_variants.likeness", "weight": 0.1, "compares": "faces"},
        "moco": {"_target_": "tests.methods.test_variants.likeness", "weight": 0.5, "compares": "objects"},
    }
    with pytest.raises(
        UserError, match=r"loss: got loss\.id \(faces\), loss\.moco \(objects\); expected identity or MoCo"
    ):
        build_loss_terms(nodes)
    assert set(build_loss_terms({**nodes, "id": {**nodes["id"], "weight": 0}}).terms) == {"moco"}


def likeness(compares: str) -> torch.nn.Module:
    module = torch.nn.Identity()
    module.compares = compares  # type: ignore[assignment]
    return module
