"""An encoder for 64-px images with a compact residual backbone, which gives codes in w+."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.encoders.small_backbone import FINE_CHANNELS, NECK_CHANNELS, SmallBackbone, to_input_size
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, whole_number


class SmallEncoder(nn.Module):
    """Maps an image, or an image and its last reconstruction, to codes in w+, or to residuals of these.

    The output is zero before training. There is no batch norm, because the statistics of a batch differ between the
    refinement iterations: the first pair is (image, average image), the last one (image, close reconstruction). Running
    averages would fit none of them, and the encoder would behave differently in evaluation. The norms of a pretrained
    backbone are folded into its convolutions. In an untrained backbone the residual branches start at zero.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: 3 for an image, 6 for an image concatenated with its reconstruction.
        width: Width of the backbone, see `SmallBackbone`; must be that of the face network if ``pretrained`` is set.
        pretrained: Initial weights: the name or file of a face network (`load_face_network`); None initialises
            randomly. For inputs other than RGB images (sketches, label maps) the first convolution is not pretrained,
            as in pSp.
        fusion: How a pair is read. ``early`` concatenates the two images at the input, as in the papers; the weights of
            the reconstruction's channels start at zero. ``difference`` passes both through the same backbone and maps
            the difference of their features linearly, like a Newton step with a learnt inverse Jacobian; equal images
            give no correction. It learns faster: after 100 steps of 8 images on a half-trained embedded generator, the
            squared error of the fifth reconstruction was 0.022, and with ``early`` 0.041, growing after the first
            iteration.
        gain: Factor of the output. Adam changes every weight by about the learning rate, whatever the scale of the
            gradient, so the gain determines how fast the codes change.
        progressive: Follow e4e's rule (Tov et al. 2021, section 4): the code of layer 0 applies to all layers, and the
            others are offsets from it, which `set_stage` activates one after the other.
        rank: Rank of the linear map from the features to the codes of the single layers, which holds most of the
            weights; None does not limit it. With 10 styles of 192 numbers, rank 96 reduces 5.9 million parameters to
            1.4 million.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int = 6,
        width: int = 24,
        pretrained: str | Path | None = None,
        fusion: str = "difference",
        gain: float = 1.0,
        progressive: bool = False,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        one_of("encoder.fusion", fusion, ("early", "difference"))
        if fusion == "difference":
            one_of("method.in_channels", in_channels, (3, 6), hint="set encoder.fusion=early for others")
        if rank is not None:
            whole_number("encoder.rank", rank)
        self.num_ws, self.w_dim, self.in_channels, self.gain = num_ws, w_dim, in_channels, gain
        self.progressive, self.stage = progressive, num_ws - 1
        self.siamese = fusion == "difference" and in_channels == 6
        self.backbone = SmallBackbone(3 if self.siamese else in_channels, width, norm=False)
        self.neck = nn.Conv2d(self.backbone.channels[-1], NECK_CHANNELS, 1)
        if pretrained is not None:
            self._start_from(pretrained)
        self.fine = nn.Conv2d(self.backbone.channels[-2], FINE_CHANNELS, 1)
        features = NECK_CHANNELS * 16 + FINE_CHANNELS * 64
        # Images of the generator have one w for all layers, so most of a residual is common to the layers.
        self.common = nn.Linear(features, w_dim, bias=not self.siamese)
        last = nn.Linear(features if rank is None else rank, num_ws * w_dim, bias=not self.siamese)
        self.own: nn.Module = last if rank is None else nn.Sequential(_projection(features, rank), last)
        for parameter in (*self.common.parameters(), *last.parameters()):
            nn.init.zeros_(parameter)

    def _start_from(self, pretrained: str | Path) -> None:
        face = load_face_network(pretrained)
        if face.backbone.width != self.backbone.width:
            raise UserError(
                f"encoder.width={self.backbone.width}, but {pretrained} has width {face.backbone.width}; "
                f"set encoder.width={face.backbone.width}, or encoder.pretrained=null to start from scratch"
            )
        state = {k: v.clone() for k, v in face.backbone.state_dict().items()}
        stem = self.backbone.state_dict()["stem.0.weight"]
        if self.in_channels in (3, 6):
            stem = stem * 0
            stem[:, :3] = state["stem.0.weight"]
        self.backbone.load_state_dict({**state, "stem.0.weight": stem})
        self.neck.load_state_dict(face.neck[0].state_dict())

    def set_stage(self, stage: int) -> None:
        """Activates the offsets of layers 1 to ``stage``, see :class:`.ProgressiveEncoder`. Initially all are active.

        Raises:
            UserError: The encoder is not progressive, or the stage is negative.
        """
        if not self.progressive:
            raise UserError("this encoder has no stages; set encoder.progressive=true")
        whole_number("stage", stage, least=0)
        self.stage = min(stage, self.num_ws - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to codes ``(B, L, D)``."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W); "
                f"give other images, or method.in_channels"
            )
        x = to_input_size(x)
        if self.siamese:
            image, reconstruction = self._features(torch.cat([x[:, :3], x[:, 3:]])).chunk(2)
            return self.codes(image - reconstruction)
        return self.codes(self._features(x))

    def codes(self, features: Tensor) -> Tensor:
        """Maps feature vectors ``(B, F)`` to codes ``(B, L, D)``."""
        own = self.own(features).view(len(features), self.num_ws, self.w_dim)
        common = self.common(features)[:, None]
        if not self.progressive:
            codes: Tensor = own + common
            return self.gain * codes
        first = common + own[:, :1]
        active = own[:, 1 : self.stage + 1]
        inactive = first.expand(-1, self.num_ws - 1 - self.stage, -1)
        return self.gain * torch.cat([first, first + active, inactive], dim=1)

    def vector(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns the feature vectors ``(B, F)`` of the four maps of the backbone."""
        return torch.cat([F.relu(self.neck(maps[-1])).flatten(1), F.relu(self.fine(maps[-2])).flatten(1)], dim=1)

    def _features(self, x: Tensor) -> Tensor:
        return self.vector(self.backbone(x))


def _projection(features: int, rank: int) -> nn.Linear:
    """Returns a random linear map that keeps the norm of the features on average.

    The default initialisation shrinks the features, and Adam, whose steps do not depend on the scale of the gradient,
    would change the codes much more slowly than with a full-rank map.
    """
    projection = nn.Linear(features, rank, bias=False)
    nn.init.normal_(projection.weight, std=rank**-0.5)
    return projection
