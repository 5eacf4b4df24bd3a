"""Label maps from one of torchvision's segmentation networks, whose weights are read from a file.

TorchScript programs and pickled modules contain code. Only weights are therefore read: safetensors, or a file of
``torch.save``, of which nothing is executed. The keys tell the architecture and the number of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import misfits, plain_names, read_weights, with_counters

ARCHITECTURES = (
    "lraspp_mobilenet_v3_large",
    "deeplabv3_mobilenet_v3_large",
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "fcn_resnet50",
    "fcn_resnet101",
)
#: The layer with one output for each class, in the architectures.
_LAST = ("classifier.low_classifier.weight", "classifier.4.weight")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def load_segmentation(path: Path) -> nn.Module:
    """Loads a segmentation network.

    Args:
        path: File of the weights.

    Returns:
        The network, frozen and in evaluation mode.

    Raises:
        UserError: No file of weights, or those of another architecture.
    """
    from torchvision.models import get_model

    content, _ = read_weights(path)
    nested = content.get("model", content.get("state_dict", content))
    entries = nested.items() if isinstance(nested, Mapping) else ()
    state = plain_names({str(key): value for key, value in entries if isinstance(value, Tensor)})
    last = next((state[key] for key in _LAST if key in state), None)
    if last is None:
        raise UserError(
            f"{path}: expected the state dict of one of torchvision's segmentation networks "
            f"({', '.join(ARCHITECTURES)}), got {len(state)} tensors like {', '.join(list(state)[:2]) or 'none'}"
        )
    problems = {}
    for name in ARCHITECTURES:
        options = {"aux_loss": any(key.startswith("aux_classifier.") for key in state)} if "lraspp" not in name else {}
        with torch.device("meta"):
            network: nn.Module = get_model(name, weights=None, weights_backbone=None, num_classes=len(last), **options)
        problems[name] = misfits(network.state_dict(), state)
        if not problems[name]:
            network.load_state_dict(with_counters(network.state_dict(), state), assign=True)
            frozen: torch.nn.Module = network.eval().requires_grad_(False)
            return frozen
    closest = min(problems, key=lambda name: len(problems[name]))
    raise UserError(f"{path}: fits none of torchvision's segmentation networks; closest {closest}: {problems[closest]}")


@torch.inference_mode()
def segment(network: nn.Module, pixels: Tensor, side: int) -> np.ndarray:
    """Returns the most likely class of each pixel.

    Args:
        network: The network from :func:`load_segmentation`.
        pixels: RGB image ``(3, H, W)``, uint8.
        side: Side of the network's square input in pixels.

    Returns:
        Class indices ``(H, W)``, int64.
    """
    image = F.interpolate(pixels[None].float() / 255, (side, side), mode="bilinear", antialias=True)
    image = (image - image.new_tensor(_MEAN)[:, None, None]) / image.new_tensor(_STD)[:, None, None]
    scores = F.interpolate(network(image)["out"], pixels.shape[-2:], mode="bilinear")
    return scores[0].argmax(0).numpy()
