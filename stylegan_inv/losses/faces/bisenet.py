"""BiSeNet, which labels the pixels of a face with 19 classes (Yu et al., ECCV 2018, arXiv 1808.00897).

Official network of the weights: ``BiSeNet(19)`` of zllrunning/face-parsing.PyTorch, trained on CelebAMask-HQ
(``79999_iter.pth``); the names of the modules are those of its state dict.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 19


class BiSeNet(nn.Module):
    """Maps images to the logits of its three outputs.

    Args:
        classes: Number of classes.
    """

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        self.cp = _ContextPath()
        self.ffm = _FeatureFusionModule()
        self.conv_out = _Output(256, 256, classes)
        self.conv_out16 = _Output(128, 64, classes)
        self.conv_out32 = _Output(128, 64, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Maps images ``(B, 3, H, W)`` with ImageNet's normalisation to logits ``(B, classes, H, W)``.

        The first output is the prediction, the others are the auxiliary outputs of training.
        """
        spatial, fine, coarse = self.cp(x)
        outputs = (self.conv_out(self.ffm(spatial, fine)), self.conv_out16(fine), self.conv_out32(coarse))
        first, second, third = (F.interpolate(out, x.shape[2:], mode="bilinear", align_corners=True) for out in outputs)
        return first, second, third


class _ConvBNReLU(nn.Module):
    def __init__(self, in_channels: int, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Output(nn.Module):
    def __init__(self, in_channels: int, channels: int, classes: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(in_channels, channels, 3)
        self.conv_out = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.conv_out(self.conv(x))
        return logits


class _AttentionRefinement(nn.Module):
    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = _ConvBNReLU(in_channels, channels, 3)
        self.conv_atten = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        mean = x.mean(dim=(2, 3), keepdim=True)
        return x * torch.sigmoid(self.bn_atten(self.conv_atten(mean)))


class _ContextPath(nn.Module):
    """ResNet-18 with attention refinement of its two coarsest maps."""

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import resnet18  # takes seconds to import

        self.resnet = resnet18(weights=None)
        del self.resnet.fc
        self.arm16 = _AttentionRefinement(256, 128)
        self.arm32 = _AttentionRefinement(512, 128)
        self.conv_head32 = _ConvBNReLU(128, 128, 3)
        self.conv_head16 = _ConvBNReLU(128, 128, 3)
        self.conv_avg = _ConvBNReLU(512, 128, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        net = self.resnet
        x = net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x)))))
        map8 = net.layer2(x)
        map16 = net.layer3(map8)
        map32 = net.layer4(map16)
        mean = self.conv_avg(map32.mean(dim=(2, 3), keepdim=True))
        coarse = self.conv_head32(F.interpolate(self.arm32(map32) + mean, map16.shape[2:]))
        fine = self.conv_head16(F.interpolate(self.arm16(map16) + coarse, map8.shape[2:]))
        return map8, fine, coarse


class _FeatureFusionModule(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convblk = _ConvBNReLU(256, 256, 1)
        self.conv1 = nn.Conv2d(256, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 256, 1, bias=False)

    def forward(self, spatial: Tensor, context: Tensor) -> Tensor:
        x = self.convblk(torch.cat([spatial, context], dim=1))
        attention = torch.sigmoid(self.conv2(F.relu(self.conv1(x.mean(dim=(2, 3), keepdim=True)))))
        fused: Tensor = x * attention + x
        return fused
