"""InsightFace's improved residual network without squeeze and excitation (IResNet), with its official names.

It is the backbone of the Feature-Style encoder and of StyleFeatureEditor's inverter, and the recognition network of the
former's identity loss. Papers: ArcFace (Deng et al., CVPR 2019, arXiv 1801.07698), improved residual networks (Duta et
al., arXiv 2004.04989). It differs from `encoders.irse` in its names and in the normalised shortcut of every group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import misfits, network_state, read_weights, with_counters
from stylegan_inv.weights.download import fetch
from stylegan_inv.weights.table import TABLE

CHANNELS = (64, 128, 256, 512)
UNITS_50 = (3, 4, 14, 3)
#: Side of the aligned faces of the recognition network, in pixels, and size of its embeddings.
FACE_SIZE, EMBEDDING_DIM = 112, 512
SOURCE = "an IResNet-50 of InsightFace (backbone.pth of ms1mv3 or glint360k)"


class Unit(nn.Module):
    """A residual unit: BN, 3x3, BN, PReLU, strided 3x3, BN, and a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride of the second convolution.
        projection: Whether the shortcut is a strided 1x1 convolution with BN, as in the first unit of a group.
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1, projection: bool = False) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if projection:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, in_channels, h, w)`` to ``(B, channels, h / stride, w / stride)``."""
        residual: Tensor = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return residual + (x if self.downsample is None else self.downsample(x))


def group(in_channels: int, channels: int, units: int, stride: int = 2) -> nn.Sequential:
    """Returns a group of units, the first of which has the stride and a projection."""
    first = Unit(in_channels, channels, stride, projection=True)
    return nn.Sequential(first, *(Unit(channels, channels) for _ in range(units - 1)))


class IResNet(nn.Module):
    """The recognition network, with InsightFace's names.

    Args:
        channels: Channels of the four groups; the stem has those of the first.
        units: Number of units in each group.
    """

    def __init__(self, channels: Sequence[int] = CHANNELS, units: Sequence[int] = UNITS_50) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = nn.PReLU(channels[0])
        inputs = (channels[0], *channels[:-1])
        for number, (i, o, count) in enumerate(zip(inputs, channels, units, strict=True), start=1):
            self.add_module(f"layer{number}", group(i, o, count))
        self.bn2 = nn.BatchNorm2d(channels[-1])
        self.fc = nn.Linear(channels[-1] * (FACE_SIZE // 16) ** 2, EMBEDDING_DIM)
        self.features = nn.BatchNorm1d(EMBEDDING_DIM)

    def levels(self, faces: Tensor) -> list[Tensor]:
        """Returns the maps of the four groups, the finest first, and the embeddings ``(B, 512)``, not normalised.

        Args:
            faces: ``(B, 3, 112, 112)``, RGB in [-1, 1].

        Raises:
            UserError: Faces of another size.
        """
        if faces.shape[1:] != (3, FACE_SIZE, FACE_SIZE):
            raise UserError(f"got faces of shape {tuple(faces.shape)}, expected (B, 3, {FACE_SIZE}, {FACE_SIZE})")
        x = self.prelu(self.bn1(self.conv1(faces)))
        found = []
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            found.append(x)
        return [*found, self.features(self.fc(self.bn2(x).flatten(1)))]

    def forward(self, faces: Tensor) -> Tensor:
        """Maps aligned faces ``(B, 3, 112, 112)`` to embeddings ``(B, 512)``, not normalised."""
        return self.levels(faces)[-1]


def read_iresnet(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of an IResNet-50 in a file, by InsightFace's names.

    Args:
        path: The file, or its name in the weights table.

    Raises:
        UserError: No such file, or one of another network.
    """
    if not (str(path) in TABLE or Path(path).expanduser().is_file()):
        raise UserError(f"{path}: no such file, expected {SOURCE}; give its path")
    content, _ = read_weights(fetch(path))
    try:
        state = network_state(content)
        expected = IResNet().state_dict()
        if problems := misfits(expected, state):
            raise UserError(f"expected {SOURCE}: {problems}")
        return with_counters(expected, state)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def renamed_backbone(state: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Returns the tensors of the backbone of `read_iresnet` by the names of the Feature-Style encoder.

    Args:
        state: Tensors by InsightFace's names.
        names: Names that the encoder has; others are left out.
    """
    heads = {"conv1": "conv.0", "bn1": "conv.1", "prelu": "conv.2", **{f"layer{i}": f"block_{i}" for i in range(1, 5)}}
    found = {f"{heads[head]}.{rest}": value for head, rest, value in _parts(state) if head in heads}
    own = set(names)
    return {name: value for name, value in found.items() if name in own}


def _parts(state: dict[str, Tensor]) -> Iterable[tuple[str, str, Tensor]]:
    for key, value in state.items():
        head, _, rest = key.partition(".")
        yield head, rest, value
