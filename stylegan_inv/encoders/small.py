"""A compact residual backbone for 64-px images, and the inversion encoder built on it.

Meant for the embedded world (SynthFaces, the 64-px generator), where training must show something within minutes on
two CPU cores. About 33 million multiply-adds at 64 px with ``width=24``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError

MULTIPLIERS = (1, 2, 4, 6)
"""Channels of the four stages, in units of ``width``."""
NECK_CHANNELS = 64
"""Channels to which the last map (4x4) is reduced before it is read out."""
FINE_CHANNELS = 24
"""The same for the last map but one (8x8), which the encoder reads as well."""


def _conv(in_channels: int, out_channels: int, stride: int, norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else nn.Sequential(conv)


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the shortcut of a strided block is a 2x2 mean and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv0 = _conv(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(out_channels, out_channels, 1, norm)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False) if stride > 1 else None
        if not norm:
            # Without normalisation a residual branch that starts at zero keeps the variance of the sum in bounds
            # (Fixup, arXiv 1901.09321, section 3).
            nn.init.zeros_(self.conv1.get_parameter("0.weight"))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.skip is None else self.skip(F.avg_pool2d(x, 2))
        return F.relu(self.conv1(F.relu(self.conv0(x))) + shortcut)


class SmallBackbone(nn.Module):
    """Image -> four feature maps at 1/2, 1/4, 1/8 and 1/16 of its size.

    Args:
        in_channels: channels of the input.
        width: channels of the first map; the maps have ``width`` times (1, 2, 4, 6).
        norm: batch norm after each 3x3 convolution. False gives convolutions with bias: what batch norm becomes when
            its statistics are frozen and folded in (`fold_batch_norm`).
    """

    def __init__(self, in_channels: int = 3, width: int = 32, norm: bool = True) -> None:
        super().__init__()
        self.in_channels, self.width, self.norm = in_channels, width, norm
        self.channels = tuple(width * m for m in MULTIPLIERS)
        self.stem = _conv(in_channels, self.channels[0], 2, norm)
        inputs = (self.channels[0], *self.channels[:-1])
        strides = (1, 2, 2, 2)
        self.blocks = nn.ModuleList(
            _Block(i, o, s, norm) for i, o, s in zip(inputs, self.channels, strides, strict=True)
        )
        # Plain NCHW convolutions with this few channels run 1.5 times slower on a CPU (torch 2.15, Zen 3).
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps (B, in_channels, H, W), H and W multiples of 16, to four maps of 1/2 ... 1/16 of the size."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % 16 or x.shape[3] % 16:
            raise UserError(
                f"got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W) with H and W "
                f"multiples of 16; resize the images or set in_channels"
            )
        x = F.relu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def fold_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals ``norm(conv(x))`` in evaluation mode."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias
    return conv.weight * scale[:, None, None, None], norm.bias + (bias - mean) * scale


def fold_batch_norm(backbone: SmallBackbone) -> SmallBackbone:
    """Returns the same function without batch norm: running statistics folded into the convolutions.

    Exact for ``backbone.eval()``; faster, and safe to fine-tune with tiny batches.
    """
    if not backbone.norm:
        return backbone
    like = next(backbone.parameters())
    folded = SmallBackbone(backbone.in_channels, backbone.width, norm=False).to(like.device, like.dtype)
    source = dict(backbone.named_modules())
    with torch.no_grad():
        for name, target in folded.named_modules():
            if not isinstance(target, nn.Conv2d):
                continue
            conv = source[name]
            assert isinstance(conv, nn.Conv2d)
            if target.bias is None:  # the 1x1 shortcuts have no norm
                target.weight.copy_(conv.weight)
                continue
            norm = source[name.rsplit(".", 1)[0] + ".1"]
            assert isinstance(norm, nn.BatchNorm2d)
            weight, bias = fold_conv(conv, norm)
            target.weight.copy_(weight)
            target.bias.copy_(bias)
    return folded.train(backbone.training)


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
        from stylegan_inv.encoders.face import load_face_network  # face.py builds on this file

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


def to_input_size(image: Tensor, size: int = 64) -> Tensor:
    """Resizes (B, C, H, W) to (B, C, size, size): box mean for whole ratios, antialiased bilinear otherwise."""
    height, width = image.shape[-2:]
    if (height, width) == (size, size):
        return image
    if height % size == 0 and width % size == 0:
        return F.avg_pool2d(image, (height // size, width // size))
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
