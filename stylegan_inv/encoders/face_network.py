"""A small network for SynthFaces that gives identity embeddings, perceptual features and factors of faces.

It replaces ArcFace, LPIPS and attribute classifiers, which are made for photographs. The metrics computed from it have
names of their own: its perceptual distance is not LPIPS, and the Frechet distance of its features is not FID.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.small_backbone import NECK_CHANNELS, SmallBackbone, fold_batch_norm, fold_conv, to_input_size
from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.config_schema import parse_metadata
from stylegan_inv.generators.io.weight_files import misfits, with_counters
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.safetensors_files import read_safetensors

ASSETS = Path(__file__).resolve().parent.parent / "assets"
INPUT_SIZE = 64
#: Largest number of channels, factors and numbers of an embedding that a file may claim.
_MOST_FEATURES = 4096


class FaceNetwork(nn.Module):
    """A backbone with two linear heads on its last map, for identity embeddings and factors.

    Images are ``(B, 3, H, W)`` in [-1, 1] and are resized to 64 x 64.

    Args:
        width: Width of the backbone, see `SmallBackbone`.
        factor_names: Names of the F predicted factors. Names ``group=value`` with the same group are the classes of a
            categorical factor, predicted as probabilities. The others are standardised numbers.
        embedding_dim: Size E of the identity embedding.
        norm: Use batch norm; False for the folded network that `folded` returns.

    Attributes:
        domain: Domain of the images that it was trained on, one of `DOMAINS`; None if it is unknown.
    """

    def __init__(
        self, width: int = 24, factor_names: Sequence[str] = (), embedding_dim: int = 64, norm: bool = True
    ) -> None:
        super().__init__()
        self.domain: str | None = None
        self.width, self.embedding_dim, self.norm = width, embedding_dim, norm
        self.factor_names = tuple(factor_names)
        self.choices = choice_columns(self.factor_names)
        self.backbone = SmallBackbone(3, width, norm=norm)
        conv = nn.Conv2d(self.backbone.channels[-1], NECK_CHANNELS, 1, bias=not norm)
        self.neck = nn.Sequential(conv, nn.BatchNorm2d(NECK_CHANNELS)) if norm else nn.Sequential(conv)
        # The map is flattened, not averaged, because positions tell pose, light and shape.
        flat = NECK_CHANNELS * (INPUT_SIZE // 16) ** 2
        self.identity_head = nn.Linear(flat, embedding_dim)
        self.factor_head = nn.Linear(flat, len(self.factor_names))

    def features(self, image: Tensor) -> list[Tensor]:
        """Returns the feature maps of 32, 16, 8 and 4 px."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise UserError(f"the face network got images of shape {tuple(image.shape)}, expected (B, 3, H, W)")
        maps: list[Tensor] = self.backbone(to_input_size(image, INPUT_SIZE))
        return maps

    def embed(self, image: Tensor) -> Tensor:
        """Returns the identity embeddings ``(B, E)``, of unit length."""
        return self.embed_features(self.features(image))

    def read_out(self, image: Tensor) -> Tensor:
        """Returns the factors ``(B, F)``, standardised numbers and probabilities, in the order of ``factor_names``."""
        return self.probabilities(self.factor_logits(self.features(image)))

    def pooled(self, image: Tensor) -> Tensor:
        """Returns the mean of the last map ``(B, 6 * width)``, for Frechet distance, precision and recall."""
        return self.features(image)[-1].mean(dim=(2, 3))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the identity embeddings ``(B, E)`` and the factors ``(B, F)`` before the softmax, for training."""
        maps = self.features(image)
        return self.embed_features(maps), self.factor_logits(maps)

    # The following methods take feature maps, so that several losses can share one forward pass.

    def embed_features(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns the result of `embed` from the feature maps."""
        return F.normalize(self.identity_head(self._flat(maps)), dim=1)

    def factor_logits(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns the factors ``(B, F)`` before the softmax from the feature maps."""
        logits: Tensor = self.factor_head(self._flat(maps))
        return logits

    def probabilities(self, logits: Tensor) -> Tensor:
        """Applies a softmax to the classes of each categorical factor, ``(B, F)``."""
        out = logits.clone()
        for columns in self.choices.values():
            out[:, columns] = logits[:, columns].softmax(dim=1)
        return out

    def _flat(self, maps: Sequence[Tensor]) -> Tensor:
        return F.relu(self.neck(maps[-1])).flatten(1)

    @property
    def config(self) -> dict[str, object]:
        """The arguments of the constructor."""
        names = list(self.factor_names)
        return {"width": self.width, "factor_names": names, "embedding_dim": self.embedding_dim, "norm": self.norm}

    def folded(self) -> FaceNetwork:
        """Returns a network in evaluation mode with batch norm folded into the convolutions, which is faster."""
        if not self.norm:
            return self
        like = next(self.parameters())
        network = FaceNetwork(self.width, self.factor_names, self.embedding_dim, norm=False)
        network.domain = self.domain
        network.to(like.device, like.dtype)
        network.backbone = fold_batch_norm(self.backbone)
        conv, norm = self.neck
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        target = network.neck[0]
        assert isinstance(target, nn.Conv2d) and target.bias is not None
        with torch.no_grad():
            weight, bias = fold_conv(conv, norm)
            target.weight.copy_(weight)
            target.bias.copy_(bias)
        network.identity_head.load_state_dict(self.identity_head.state_dict())
        network.factor_head.load_state_dict(self.factor_head.state_dict())
        return network.eval()


def choice_columns(names: Sequence[str]) -> dict[str, list[int]]:
    """Returns the columns of each categorical factor, from names like ``eyeglasses=none``."""
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        if "=" in name:
            groups.setdefault(name.split("=", 1)[0], []).append(column)
    return groups


def perceptual_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Returns the distance ``(B,)`` between two lists of feature maps, in [0, 2] for non-negative maps.

    As in LPIPS (arXiv 1801.03924, equation 1), features are normalised over the channels, and squared differences are
    summed over the channels and averaged over the positions. Unlike in LPIPS, all channels and maps have the same
    weight, because nothing is calibrated on human judgements.
    """
    return torch.stack([distance.mean(dim=(1, 2, 3)) for distance in perceptual_distance_maps(a, b)]).mean(dim=0)


def perceptual_distance_maps(a: Sequence[Tensor], b: Sequence[Tensor]) -> list[Tensor]:
    """Returns the distance at each position of each map, ``(B, 1, h, w)``, see `perceptual_distance`."""
    pairs = zip(a, b, strict=True)
    return [(_unit_length(x) - _unit_length(y)).square().sum(dim=1, keepdim=True) for x, y in pairs]


def _unit_length(x: Tensor) -> Tensor:
    # Epsilon is inside the root, so that the gradient is 0 and not 0/0 where all channels are zero.
    return x * torch.rsqrt(x.square().sum(dim=1, keepdim=True) + 1e-8)


def save_face_network(network: FaceNetwork, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a face network as safetensors, with further metadata such as its origin."""
    from safetensors.torch import save_file

    state = {name: value.detach().contiguous().cpu() for name, value in network.state_dict().items()}
    domain = {} if network.domain is None else {"domain": network.domain}
    header = {**(metadata or {}), **domain, "format": "stylegan_inv.face_network", "config": json.dumps(network.config)}
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    save_file(state, str(path), metadata=header)


def load_face_network(name_or_path: str | Path) -> FaceNetwork:
    """Loads a face network, frozen, with batch norm folded. Losses that load the same file share the network.

    Args:
        name_or_path: ``face_train`` (for losses), ``face_eval`` (for evaluation), or a file.

    Raises:
        UserError: No such name or file, or a file of something else.
    """
    path = Path(name_or_path)
    if path.suffix.lower() != ".safetensors" and not path.exists():
        path = ASSETS / f"{name_or_path}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in ASSETS.glob("face_*.safetensors"))) or "none"
        raise UserError(
            f"face network {str(name_or_path)!r}: no such file or embedded network (embedded: {known}); "
            f"train one with: python -m stylegan_inv.train experiment=synthfaces_face_train"
        )
    return _load(str(path.resolve()))


def _check_sizes(config: dict[str, Any]) -> None:
    """Checks the sizes that a file claims, before a network of them is built."""
    for name in ("width", "embedding_dim"):
        if name in config:
            whole_number(name, config[name], 1, _MOST_FEATURES)
    names = config.get("factor_names", [])
    if not isinstance(names, list) or len(names) > _MOST_FEATURES or not all(isinstance(name, str) for name in names):
        raise UserError("factor_names: expected a list of texts")


@functools.cache
def _load(path: str) -> FaceNetwork:
    metadata, state = read_safetensors(path, "a face network")
    if metadata.get("format") != "stylegan_inv.face_network":
        raise UserError(f"{path}: got {metadata.get('format', 'an unknown format')}, expected a face network")
    try:
        config = parse_metadata(metadata.get("config", ""), "config")
        _check_sizes(config)
        with torch.device("meta"):
            expected = FaceNetwork(**config).state_dict()
        if problems := misfits(expected, state):
            raise UserError(f"does not fit its config: {problems}")
    except (UserError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: not a face network ({error}); expected a file that stylegan_inv.train wrote"
        ) from None
    network = FaceNetwork(**config)
    network.load_state_dict(with_counters(expected, state))
    # The embedded networks were trained on SynthFaces.
    network.domain = "synthfaces" if Path(path).parent == ASSETS else metadata.get("domain")
    return network.eval().folded().requires_grad_(False)
