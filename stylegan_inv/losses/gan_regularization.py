"""Regularisation of GAN training: R1 of the discriminator, and path length of the generator (StyleGAN2, section 3).

The functions return unweighted values; weights and the factors of lazy regularisation belong to the method.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.generators.ops.dispatch import no_weight_gradients


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Returns R1 = E |dD(x)/dx|^2 at real images (Mescheder et al. 2018, equation 9, without the factor gamma/2).

    Args:
        real_logits: (B, 1), computed from ``real_images``.
        real_images: (B, C, H, W), or codes (B, D); must require a gradient.
    """
    with no_weight_gradients():
        (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor | None = None) -> Tensor:
    """Returns StyleGAN2's path length |J_w^T y| of each sample (Karras et al. 2020, section 3.2), (B,).

    It is the root mean square over the layers, and can be differentiated a second time.

    Args:
        images: (B, C, H, W), computed from ``ws``.
        ws: Codes (B, L, D), one per layer; must require a gradient.
        noise: y, standard normal, of the images' shape; None draws it. It is divided by sqrt(H W), which makes the
            expected length independent of the resolution.
    """
    y = torch.randn_like(images) if noise is None else noise
    y = y / (images.shape[2] * images.shape[3]) ** 0.5
    with no_weight_gradients():
        (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_penalty(lengths: Tensor, mean_length: Tensor) -> Tensor:
    """Returns E (|J_w^T y| - a)^2, where ``a`` is the running mean of the lengths (a scalar without gradient)."""
    return (lengths - mean_length.detach()).square().mean()
