"""Writes what the recipes of the papers need, in its real size and layout: random weights, and drawn images.

``python -m tests.rehearsal.stand_ins FOLDER`` writes ``cache/`` (for ``STYLEGAN_INV_CACHE``), ``data/`` and
``photos/``. It is run in a process of its own, whose memory is freed at its end.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.encoders.feature_space.iresnet import IResNet
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import FaceRecognition, curricularface
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.generators import Discriminator, Generator, to_nvidia, to_rosinality
from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.io.network_export import exported
from stylegan_inv.losses.faces.bisenet import BiSeNet
from stylegan_inv.weights.table import TABLE
from tests.generators.tensorflow_variables import to_tensorflow

#: Images of each folder; JPEG and PNG in turn.
IMAGES = 12
#: Images that are inverted and edited.
PHOTOS = 2
#: CelebA's index of the first image of each split, and images of each in the mapping file.
FIRST_OF_SPLIT, IMAGES_OF_SPLIT = (0, 162771, 182638), (6, 3, 3)
_GENERATOR_HINTS = {
    "synthesis.b4.conv1.activation": "lrelu",
    "synthesis.b4.conv1.conv_clamp": 256,
    "synthesis.b4.conv1.use_noise": True,
    "mapping.fc0.bias_gain": 0.01,
    "z_dim": 512,
}


def write_all(folder: Path) -> None:
    """Writes everything, and builds the kernels, so that the first recipe does not have to."""
    torch.manual_seed(0)
    weights = folder / "cache" / "weights"
    weights.mkdir(parents=True)
    _write_generators(weights)
    _write_networks(weights)
    _write_data(folder / "data")
    _write_feature_networks(folder / "data" / "networks")
    _write_e4e(weights)
    _write_images(folder / "photos", 1024, PHOTOS)
    native_layer.load()


# -- weights -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def random_generator(resolution: int) -> Generator:
    """Returns a generator of the papers' size whose noise inputs have an effect, with its average code."""
    generator = Generator(resolution)
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.normal_(std=0.1)
    generator.w_avg.copy_(generator.mapping(torch.randn(1000, 512))[:, 0].mean(0))
    return generator


def _write_generators(weights: Path) -> None:
    for name, resolution in (("ffhq-config-f", 1024), ("car-512", 512), ("church-256", 256)):
        generator = random_generator(resolution)
        torch.save(exported(generator, "rosinality"), weights / f"stylegan2-{name}.pt")
        if resolution == 1024:
            _write_w_encoder(generator, weights)
    _write_nvidia(random_generator(512), weights, "stylegan2-afhq-wild-512")
    _write_nvidia(random_generator(1024), weights, "stylegan2-ffhq-1024")
    _write_tensorflow(random_generator(256), weights, "stylegan2-horse-256")


def _write_w_encoder(generator: Generator, weights: Path) -> None:
    """Writes the encoder into W that HyperStyle starts from, with its generator."""
    encoder = SingleWEncoder(generator.num_ws, generator.w_dim)
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in to_rosinality(generator.state_dict()).items()}
    opts = {"encoder_type": "SingleStyleCodeEncoder", "output_size": generator.resolution}
    content = {"state_dict": state, "latent_avg": generator.w_avg.repeat(generator.num_ws, 1), "opts": opts}
    torch.save(content, weights / TABLE["hyperstyle-ffhq-w"].file)


def _write_nvidia(generator: Generator, weights: Path, name: str) -> None:
    """Writes the networks that NVIDIA's file of PyTorch holds: G, its moving average, and D."""
    from tests.generators.nvidia_objects import EasyDict, tree

    resolution, path = generator.resolution, weights / TABLE[name].file
    state = to_nvidia(generator.state_dict())
    trained = {key: value.clone() for key, value in state.items()}
    discriminator = tree(
        to_nvidia(Discriminator(resolution).state_dict()),
        "Discriminator",
        {"b4.mbstd.group_size": 4, "b4.conv.conv_clamp": None},
    )
    content = {
        "G": tree(trained, "Generator", _GENERATOR_HINTS),
        "D": discriminator,
        "G_ema": tree(state, "Generator", _GENERATOR_HINTS),
        "training_set_kwargs": EasyDict(resolution=resolution),
        "augment_pipe": None,
    }
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)
    _enlarge(path, TABLE[name].size)


def _write_tensorflow(generator: Generator, weights: Path, name: str) -> None:
    """Writes the networks that NVIDIA's file of TensorFlow holds: G, D, and the moving average of G."""
    from tests.generators.nvidia_objects import tensorflow_networks

    average, discriminator = tensorflow_networks(to_tensorflow(generator, Discriminator(generator.resolution)))
    with open(weights / TABLE[name].file, "wb") as file:
        pickle.dump((average, discriminator, average), file, protocol=4)


def _write_networks(weights: Path) -> None:
    from torchvision import models

    states: dict[str, Callable[[], nn.Module]] = {
        "ir-se50": FaceRecognition,
        "curricularface": curricularface,
        "resnet34": models.resnet34,
        "alexnet": models.alexnet,
        "vgg16": models.vgg16,
    }
    for name, build in states.items():
        _save(build().state_dict(), weights, name)
    moco = models.resnet50()
    moco.fc = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 128))  # type: ignore[assignment]
    state = {f"module.encoder_q.{key}": value for key, value in moco.state_dict().items()}
    _save({"epoch": 800, "arch": "resnet50", "state_dict": state}, weights, "moco-v2")
    _save(inception_state(weights), weights, "inception")


def inception_state(folder: Path) -> dict[str, Tensor]:
    """Returns random weights of torch-fidelity's Inception, whose features are not nearly zero."""
    from unittest import mock

    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    empty = folder / "empty.pth"
    torch.save({}, empty)
    with mock.patch.object(nn.Module, "load_state_dict", lambda self, state: None):
        network = FeatureExtractorInceptionV3("any", ["2048"], str(empty))
    empty.unlink()
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return network.state_dict()


def _write_feature_networks(folder: Path) -> None:
    """Writes the files that the recipes of fse and sfe name by their paths, and a direction."""
    folder.mkdir(parents=True)
    torch.save(IResNet().state_dict(), folder / "iresnet50.pth")
    torch.save(BiSeNet().state_dict(), folder / "bisenet.pth")
    torch.save(torch.randn(1, 18, 512), folder / "direction.pt")


def _write_e4e(weights: Path) -> None:
    """Writes the checkpoint of e4e, whose generator the recipe of sfe uses."""
    content = torch.load(weights / "stylegan2-ffhq-config-f.pt", weights_only=True)
    state = {f"encoder.{key}": value for key, value in FPNEncoder(18, 512, progressive=True).state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in content["g_ema"].items()}
    checkpoint = {"state_dict": state, "latent_avg": content["latent_avg"], "opts": {"encoder_type": "Encoder4Editing"}}
    _save(checkpoint, weights, "e4e-ffhq")


def _save(content: Mapping[str, Any], weights: Path, name: str) -> None:
    path = weights / TABLE[name].file
    torch.save(dict(content), path, _use_new_zipfile_serialization=False)  # as these files were, before 2020
    _enlarge(path, TABLE[name].size)


def _enlarge(path: Path, size: int | None) -> None:
    """Gives a file the size of the published one, whose sources and names of storages are a little longer."""
    if size is None:
        return
    missing = size - path.stat().st_size
    assert 0 <= missing < 2_000_000, f"{path}: {missing} bytes fewer than the published file"
    os.truncate(path, size)


# -- images ------------------------------------------------------------------------------------------------------------


def drawn(count: int, resolution: int) -> Iterator[Image.Image]:
    """Draws portraits with the noise of a camera."""
    noise = torch.Generator().manual_seed(0)
    for item in SynthFaces(min(resolution, 512), seed=3, size=count):
        image: Tensor = F.interpolate(item["image"][None], size=(resolution, resolution), mode="bicubic")[0]
        yield to_pil((image + 0.02 * torch.randn(image.shape, generator=noise)).clamp(-1, 1))


def _write_images(folder: Path, resolution: int, count: int = IMAGES, name: str = "{:05d}", width: float = 1.0) -> None:
    folder.mkdir(parents=True)
    for number, image in enumerate(drawn(count, resolution)):
        if width != 1.0:
            image = image.resize((int(resolution * width), resolution))
        image.save(folder / f"{name.format(number)}.{'jpg' if number % 2 else 'png'}")


def _write_data(data: Path) -> None:
    _write_images(data / "ffhq" / "00000", 1024)
    _write_masks(data / "ffhq_masks" / "00000", 1024)
    _write_images(data / "celeba_hq" / "test", 1024, 3, "{}")
    _write_celeba_mask_hq(data / "CelebAMask-HQ")
    for part in ("cars_train", "cars_test"):
        _write_images(data / "stanford_cars" / part, 480, width=4 / 3)
    for name, resolution in {"church": 256, "horse": 256, "wild": 512}.items():
        for part in ("train", "test"):
            _write_images(data / name / part, resolution)


def _write_masks(folder: Path, resolution: int) -> None:
    folder.mkdir(parents=True)
    for number, item in enumerate(SynthFaces(64, seed=3, size=IMAGES)):
        to_pil((item["mask"] * 2 - 1).expand(3, -1, -1)).resize((resolution, resolution)).save(
            folder / f"{number:05d}.png"
        )


def _write_celeba_mask_hq(folder: Path) -> None:
    """CelebAMask-HQ as it is distributed: images by number, masks below the same root, and the mapping to CelebA."""
    _write_images(folder / "CelebA-HQ-img", 1024, sum(IMAGES_OF_SPLIT), "{}")
    masks = folder / "CelebAMask-HQ-mask-anno" / "0"
    masks.mkdir(parents=True)
    Image.new("L", (512, 512), 255).save(masks / "00000_hair.png")
    originals = [first + k for first, count in zip(FIRST_OF_SPLIT, IMAGES_OF_SPLIT, strict=True) for k in range(count)]
    rows = [f"{number:<12}{original:<12}{original + 1:06d}.jpg" for number, original in enumerate(originals)]
    mapping = "\n".join(["idx         orig_idx    orig_file", *rows])
    (folder / "CelebA-HQ-to-CelebA-mapping.txt").write_text(mapping + "\n")


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
