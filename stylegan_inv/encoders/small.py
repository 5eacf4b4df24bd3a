"""The inversion encoder for 64-px images: W+ codes from a compact residual backbone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.encoders.small_backbone import FINE_CHANNELS, NECK_CHANNELS, SmallBackbone, to_input_size
from stylegan_inv.errors import UserError


class SmallEncoder(nn.Module):
    """Image, or image beside its last reconstruction, -> codes in W+ (residuals: zero before training).

    There is no batch norm. A refinement step feeds the pair (image, average image) first and (image, close
    reconstruction) last, so that the statistics of one batch differ from step to step and running averages fit none of
    them: an encoder with batch norm behaves differently in evaluation. A pretrained backbone has its norms folded into
    its convolutions, an untrained one starts with residual branches at zero.

    Args:
        num_ws: styles L of the generator.
        w_dim: their size D.
        in_channels: 3 for an image alone, 6 for the image beside its reconstruction.
        width: see `SmallBackbone`; must be the face network's when ``pretrained`` is given.
        pretrained: name or file of a face network (`load_face_network`) to start from; None starts from scratch. Inputs
            that are no pictures (sketches, label maps) have a first convolution of their own, as in pSp.
        fusion: how a pair is read. ``early`` concatenates the two images at the input (the papers; weights of the
            reconstruction's channels start at zero). ``difference`` passes both through the same backbone and maps
            the difference of their features linearly: a Newton step with a learnt inverse Jacobian, and no difference
            means no correction. It learns faster: after 100 steps of 8 images on a half-trained embedded generator the
            fifth reconstruction had a squared error of 0.022; with ``early`` 0.041, growing from the second step on.
        progressive: e4e's rule (Tov et al. 2021, section 4): the code of layer 0 stands for all layers, and the others
            are offsets from it, which `set_stage` activates one after the other.
        gain: multiplies the output. Adam moves every weight by about the learning rate, whatever the gradient's scale,
            so this sets how fast the codes can move.
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
    ) -> None:
        super().__init__()
        if fusion not in ("early", "difference"):
            raise UserError(f"encoder.fusion={fusion!r}: expected 'early' or 'difference'")
        if fusion == "difference" and in_channels not in (3, 6):
            raise UserError(f"encoder.in_channels={in_channels}: expected 3 or 6; set encoder.fusion=early for others")
        self.num_ws, self.w_dim, self.in_channels, self.gain = num_ws, w_dim, in_channels, gain
        self.progressive, self.stage = progressive, num_ws - 1
        self.siamese = fusion == "difference" and in_channels == 6
        self.backbone = SmallBackbone(3 if self.siamese else in_channels, width, norm=False)
        self.neck = nn.Conv2d(self.backbone.channels[-1], NECK_CHANNELS, 1)
        if pretrained is not None:
            self._start_from(pretrained)
        self.fine = nn.Conv2d(self.backbone.channels[-2], FINE_CHANNELS, 1)
        features = NECK_CHANNELS * 16 + FINE_CHANNELS * 64
        # Images of the generator have one w for all layers: most of a residual is common to them, the rest is own.
        self.common = nn.Linear(features, w_dim, bias=not self.siamese)
        self.own = nn.Linear(features, num_ws * w_dim, bias=not self.siamese)
        for parameter in (*self.common.parameters(), *self.own.parameters()):
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
        """Activate the offsets of layers 1 ... ``stage``; 0 is a single w, L - 1 or more everything (the start).

        Raises:
            UserError: the encoder is not progressive, or the stage is negative.
        """
        if not self.progressive or stage < 0:
            raise UserError(f"stage={stage}: expected encoder.progressive=true and a stage of at least 0")
        self.stage = min(stage, self.num_ws - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) in [-1, 1] to (B, L, D)."""
        if x.ndim != 4 or x.shape[1] != self.in_channels:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W); "
                f"set encoder.in_channels"
            )
        batch = len(x)
        x = to_input_size(x)
        if self.siamese:
            image, reconstruction = self._read(torch.cat([x[:, :3], x[:, 3:]])).chunk(2)
            features = image - reconstruction
        else:
            features = self._read(x)
        own, common = self.own(features).view(batch, self.num_ws, self.w_dim), self.common(features)[:, None]
        if not self.progressive:
            return self.gain * (own + common)
        first = common + own[:, :1]
        active = own[:, 1 : self.stage + 1]
        idle = first.expand(-1, self.num_ws - 1 - self.stage, -1)
        return self.gain * torch.cat([first, first + active, idle], dim=1)

    def _read(self, x: Tensor) -> Tensor:
        maps = self.backbone(x)
        return torch.cat([F.relu(self.neck(maps[-1])).flatten(1), F.relu(self.fine(maps[-2])).flatten(1)], dim=1)
