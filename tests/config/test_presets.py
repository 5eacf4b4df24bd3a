"""The recipes for FFHQ and the presets have the numbers of NVIDIA's ``train.py``, which are written out here."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR
from stylegan_inv.config.resolvers import auto_setting, per_rank, rank_count, steps_of
from stylegan_inv.errors import UserError

#: Setting and number of GPUs -> images on each GPU, group of the minibatch deviation, channel base, learning rate, R1's
#: gamma, half-life of the average in thousands of images, its ramp-up and the depth of the mapping network, as
#: NVlabs/stylegan2-ada-pytorch d72cc7d has them for images of 256 and of 1024 px.
FIXED = {
    ("stylegan2", 1): (32, 4, 32768, 0.002, 10.0, 10, None, 8),
    ("stylegan2", 8): (4, 4, 32768, 0.002, 10.0, 10, None, 8),
    ("paper256", 1): (64, 8, 16384, 0.0025, 1.0, 20, None, 8),
    ("paper512", 8): (8, 8, 32768, 0.0025, 0.5, 20, None, 8),
    ("paper1024", 4): (8, 4, 32768, 0.002, 2.0, 10, None, 8),
}
AUTO = {
    (256, 1): (16, 4, 16384, 0.0025, 0.8192, 5, 0.05, 2),
    (256, 2): (16, 4, 16384, 0.0025, 0.4096, 10, 0.05, 2),
    (256, 4): (16, 4, 16384, 0.0025, 0.2048, 20, 0.05, 2),
    (256, 8): (8, 4, 16384, 0.0025, 0.2048, 20, 0.05, 2),
    (512, 1): (8, 4, 32768, 0.0025, 6.5536, 2.5, 0.05, 2),
    (1024, 1): (4, 4, 32768, 0.002, 52.4288, 1.25, 0.05, 2),
    (1024, 2): (4, 4, 32768, 0.002, 26.2144, 2.5, 0.05, 2),
    (1024, 8): (4, 4, 32768, 0.002, 6.5536, 10, 0.05, 2),
}
#: What all of NVIDIA's settings share, by key.
SHARED = {
    "generator.z_dim": 512,
    "generator.w_dim": 512,
    "generator.channel_max": 512,
    "generator.conv_clamp": 256,
    "generator.mapping_lr_multiplier": 0.01,
    "method.discriminator.channel_max": 512,
    "method.discriminator.conv_clamp": 256,
    "method.betas": [0.0, 0.99],
    "method.loss": "nonsaturating",
    "method.style_mixing": 0.9,
    "method.r1_every": 16,
    "method.r2_gamma": 0.0,
    "method.path_length_weight": 2.0,
    "method.path_length_every": 4,
    "method.path_length_decay": 0.01,
    "method.path_length_shrink": 2,
    "method.w_avg_decay": 0.995,
    "method.total_images": 25_000_000,
    "augment.target": 0.6,
    "augment.ada_images": 500_000,
    "dataset.horizontal_flip": 0.5,
    "metrics.fid50k_full.generated": 50_000,
    "metrics.fid50k_full.mirrored": False,
}


def composed(*overrides: str) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", [*overrides, "dataset.root=images", "paths.run_dir=run"])
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


def settings(cfg: Any) -> tuple[Any, ...]:
    """What `FIXED` and `AUTO` list."""
    generator, discriminator, method = cfg.generator, cfg.method.discriminator, cfg.method
    assert generator.channel_base == discriminator.channel_base and method.lr_g == method.lr_d
    return (
        cfg.dataset.batch_size,
        discriminator.mbstd_group_size,
        generator.channel_base,
        method.lr_g,
        method.r1_gamma,
        method.ema_images / 1000,
        method.ema_rampup,
        generator.mapping_layers,
    )


@pytest.mark.parametrize(
    ("resolution", "preset", "gpus", "expected"),
    [
        (256, None, 1, FIXED["paper256", 1]),
        (256, "auto", 8, AUTO[256, 8]),
        (256, "stylegan2", 8, FIXED["stylegan2", 8]),
        (1024, None, 1, FIXED["stylegan2", 1]),
        (1024, "auto", 1, AUTO[1024, 1]),
        (1024, "paper1024", 4, FIXED["paper1024", 4]),
    ],
)
def test_settings_of_the_recipes(resolution: int, preset: str | None, gpus: int, expected: tuple[Any, ...]) -> None:
    ranks = [] if gpus == 1 else ["trainer=ddp", f"trainer.devices={gpus}"]
    chosen = [] if preset is None else [f"preset={preset}"]
    cfg = composed(f"experiment=stylegan2_ffhq{resolution}", *chosen, *ranks)
    assert settings(cfg) == pytest.approx(expected)
    assert {key: OmegaConf.select(cfg, key) for key in SHARED} == SHARED
    assert cfg.generator.resolution == cfg.method.discriminator.resolution == cfg.dataset.resolution == resolution
    batch = cfg.dataset.batch_size * gpus
    assert cfg.trainer.max_steps == -(-25_000_000 // batch) and cfg.trainer.val_check_interval == 200_000 // batch
    # All images train, and none of them is held out.
    assert cfg.dataset.val_root == cfg.dataset.root and cfg.dataset.expected_images == 70_000


@pytest.mark.parametrize(("resolution", "gpus"), AUTO)
def test_auto_on_any_number_of_gpus(resolution: int, gpus: int) -> None:
    names = ("mbstd_group_size", "channel_base", "lr", "r1_gamma", "ema_images")
    batch, *others = (auto_setting(name, resolution, gpus) for name in ("batch", *names))
    others[-1] /= 1000
    assert (per_rank(int(batch), gpus), *others) == pytest.approx(AUTO[resolution, gpus][:6])


def test_a_preset_for_other_images() -> None:
    """A batch of one's own changes nothing else, as NVIDIA's --batch."""
    cfg = composed("method=stylegan2", "dataset=folder", "preset=paper512", "dataset.batch_size=2")
    assert settings(cfg) == pytest.approx((2, *FIXED["paper512", 8][1:]))


def test_transfer_reacts_faster() -> None:
    cfg = composed("experiment=stylegan2_transfer", "generator.source=a.pkl")
    assert (cfg.augment.ada_images, cfg.method.ema_rampup) == (100_000, None)
    assert cfg.generator == {
        "_target_": "stylegan_inv.generators.finetuned", "source": "a.pkl", "from_resolution": 4,
        "mapping_trains": True, "ema": False,
    }  # fmt: skip
    assert cfg.method.discriminator.source == cfg.method.generator_ema.source == "a.pkl"
    assert cfg.method.r1_gamma == pytest.approx(0.8192)


def test_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank_count(2), rank_count([0, 3, 4]), rank_count(4, nodes=2)) == (2, 3, 8)
    for gpus, expected in ((0, 1), (3, 3)):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        assert rank_count("auto") == rank_count(-1) == expected
    assert (per_rank(64, 4), steps_of(100, 8, 2), steps_of(1, 8, 1)) == (16, 7, 1)
    with pytest.raises(UserError, match="3 ranks for a batch of 32 images; expected a divisor of 32"):
        per_rank(32, 3)
