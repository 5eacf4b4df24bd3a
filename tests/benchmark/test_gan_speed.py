"""The speed of StyleGAN2's training: our steps alternate with those of other implementations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.speed import gan_speed, other_trainers
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.generators.layers import channel_table
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

SMALL = [
    "dataset=synthfaces",
    "dataset.resolution=32",
    "dataset.train_size=4",
    "dataset.batch_size=4",
    "generator.channels={4:4,8:4,16:2,32:2}",
    "method.discriminator.channels=${generator.channels}",
    "method.r1_every=2",
    "method.path_length_every=4",
]


def test_turns_alternate_and_each_is_a_cycle_of_all_regularisers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def step(checkout: Path, method: StyleGAN2Training) -> other_trainers.OtherTrainer:
        def run(images: Tensor, number: int) -> None:
            assert images.shape == (4, 3, 32, 32)
            order.append(f"other {number}")

        return other_trainers.OtherTrainer(checkout.name, run, method.sample)

    update = StyleGAN2Training.update

    def own(method: StyleGAN2Training, batch: dict[str, Tensor], seen: int, number: int) -> None:
        order.append(method.generator.synthesis.b8.conv0.ops)
        update(method, batch, seen, number)

    monkeypatch.setattr(gan_speed, "other_trainer", step)
    monkeypatch.setattr(StyleGAN2Training, "update", own)
    file = tmp_path / "gan.json"
    threads = str(torch.get_num_threads())
    benchmark.main(["gan", *SMALL, "--against", "peer", "--repeats", "2", "--threads", threads, "--json", str(file)])
    assert order == 3 * (["auto"] * 4 + ["ref"] * 4 + [f"other {k}" for k in range(4)]) + ["ref"]
    ours, plain, other = json.loads(file.read_text())["rows"]
    assert (ours["what"], plain["what"], other["what"]) == (gan_speed.OWN, gan_speed.PLAIN, "peer")
    assert ours["times_reference"] == 1 and ours["images_per_second"] == pytest.approx(16 / ours["seconds"])
    assert other["seconds"] < plain["seconds"], "the other implementation does nothing here"


def test_a_folder_without_an_implementation_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        benchmark.main(["gan", *SMALL, "--against", str(tmp_path)])
    assert stop.value.code == 2
    assert "neither a checkout of rosinality/stylegan2-pytorch" in capsys.readouterr().err


def test_networks_that_the_other_code_cannot_have_are_refused() -> None:
    generator = Generator(z_dim=4, w_dim=4, mapping_layers=1, resolution=16, channels={4: 8, 8: 8, 16: 2})
    discriminator = Discriminator(resolution=16, channels={4: 8, 8: 8, 16: 4})
    other_trainers._check_channels(_training(discriminator.channels, discriminator), channel_table(16, 64, 8))
    with pytest.raises(UserError, match=r"discriminator.channels=.* expected {4: 8, 8: 4, 16: 2}"):
        other_trainers._check_channels(_training({4: 8, 8: 4, 16: 2}, discriminator), channel_table(16, 32, 8))
    with pytest.raises(UserError, match="generator.channels="):
        other_trainers._check_channels(StyleGAN2Training(generator, discriminator), channel_table(16, 32, 8))


def _training(channels: dict[int, int], discriminator: Discriminator) -> StyleGAN2Training:
    generator = Generator(z_dim=4, w_dim=4, mapping_layers=1, resolution=16, channels=channels)
    return StyleGAN2Training(generator, discriminator)
