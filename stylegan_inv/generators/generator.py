"""StyleGAN2's generator, a mapping and a synthesis network; with ``style="adain"`` the generator of the first StyleGAN.

"Analyzing and Improving the Image Quality of StyleGAN", Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, CVPR 2020,
arXiv 1912.04958, configuration F at any resolution and channel table. Definition: https://github.com/NVlabs/stylegan2
(commit bf0fe0b); the state-dict names are those of https://github.com/NVlabs/stylegan2-ada-pytorch (d72cc7d).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.adain import AdaINSynthesis
from stylegan_inv.generators.class_choice import ClassChoice
from stylegan_inv.generators.frozen.fused_synthesis import FusedSynthesis
from stylegan_inv.generators.layers import resolve_channels
from stylegan_inv.generators.mapping import MappingNetwork
from stylegan_inv.generators.ops import dispatch
from stylegan_inv.generators.progressive import GrowingSynthesis
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.utils.checks import one_of

STYLES = ("modulated", "adain")


class Generator(nn.Module):
    """Generator of StyleGAN2 or of the original StyleGAN.

    Args:
        resolution: Side of the image in pixels, a power of two of at least 4.
        z_dim: Size of the input noise vector.
        w_dim: Size of a style code.
        mapping_layers: Number of layers of the mapping network.
        channels: Resolution -> channels for each of 4, 8, ..., ``resolution``; None for :func:`channel_table`.
        channel_base: Of :func:`channel_table`, read where ``channels`` is None.
        channel_max: Of :func:`channel_table`, read where ``channels`` is None.
        c_dim: Size of the condition; 0 for an unconditional generator.
        img_channels: Channels of the image.
        conv_clamp: Largest magnitude of any activation, or None.
        mapping_lr_multiplier: Learning rate multiplier of the mapping layers.
        demod_eps_scaled: Where demodulation adds its 1e-8: True as in TensorFlow's and rosinality's code, False as in
            NVIDIA's PyTorch code. The difference is invisible unless styles are close to zero.
        style: How a style acts: "modulated" (StyleGAN2) or "adain" (StyleGAN, see :mod:`.adain`).
        progressive: Whether parts of the network render images too, see :mod:`.progressive`.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        config: Plain dict; ``Generator(**config)`` builds the same network.
        num_ws: Rows of a W+ code, ``2 * log2(resolution) - 2``.
        source_hash: SHA-256 of the file that the generator was loaded from, or None.
        domain: Domain of its images, one of :data:`.DOMAINS`; None if it is unknown.
        grey: Whether the image has three equal channels, see :mod:`.grey`.
    """

    def __init__(
        self,
        resolution: int,
        *,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channels: Mapping[int, int] | None = None,
        channel_base: int = 32768,
        channel_max: int = 512,
        c_dim: int = 0,
        img_channels: int = 3,
        conv_clamp: float | None = None,
        mapping_lr_multiplier: float = 0.01,
        demod_eps_scaled: bool = True,
        style: str = "modulated",
        progressive: bool = False,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        dispatch.check(ops)
        one_of("generator.style", style, STYLES)
        if style == "adain" and conv_clamp is not None:
            raise UserError(f"generator.conv_clamp={conv_clamp}: style=adain has no clamp; give null")
        table = resolve_channels(resolution, channels, channel_base, channel_max)
        self.resolution = resolution
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.img_channels = img_channels
        self.channels = table
        self.progressive = progressive
        self.source_hash: str | None = None
        self.domain: str | None = None
        self.grey = False
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_layers": mapping_layers,
            "channels": dict(table),
            "c_dim": c_dim,
            "img_channels": img_channels,
            "conv_clamp": conv_clamp,
            "mapping_lr_multiplier": mapping_lr_multiplier,
            "demod_eps_scaled": demod_eps_scaled,
            "style": style,
            "progressive": progressive,
            "ops": ops,
        }
        self.synthesis: SynthesisNetwork | AdaINSynthesis
        if style == "adain":
            self.synthesis = AdaINSynthesis(resolution, table, w_dim, img_channels, progressive=progressive, ops=ops)
        else:
            self.synthesis = (GrowingSynthesis if progressive else SynthesisNetwork)(
                resolution,
                table,
                w_dim,
                img_channels,
                conv_clamp=conv_clamp,
                demod_eps_scaled=demod_eps_scaled,
                ops=ops,
            )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(
            z_dim,
            c_dim,
            w_dim,
            self.num_ws,
            num_layers=mapping_layers,
            lr_multiplier=mapping_lr_multiplier,
            ops=ops,
        )

    @property
    def w_avg(self) -> Tensor:
        """The latent average, ``(w_dim,)``; of a conditional generator that of its class, see :meth:`set_class`."""
        return self.mapping.average()

    def set_class(self, value: int | str | None) -> None:
        """Sets the class of codes that are mapped without a condition, and of :attr:`w_avg`.

        Args:
            value: A class. "none" or None: all classes, and the latent average of the file, which is the mean over
                the classes. "dataset": the class of each image, see :meth:`with_classes`; all classes elsewhere.

        Raises:
            UserError: No such class, or the generator is unconditional.
        """
        self.mapping.classes = ClassChoice.named(value, self.c_dim)

    @property
    def class_per_image(self) -> bool:
        """Whether each image has a class of its own."""
        return self.mapping.classes is not None and self.mapping.classes.per_image

    @contextlib.contextmanager
    def with_classes(self, labels: Tensor | None) -> Iterator[None]:
        """Within the block, codes and :attr:`w_avg` ``(B, 1, w_dim)`` are of these classes if each image has its own.

        Args:
            labels: Class of each image, ``(B,)`` int64; None changes nothing.
        """
        before = self.mapping.classes
        if before is not None and labels is not None:
            self.mapping.classes = before.of_batch(labels)
        try:
            yield
        finally:
            self.mapping.classes = before

    def of_image(self, row: int) -> contextlib.AbstractContextManager[None]:
        """Returns :meth:`with_classes` of one image of the batch."""
        labels = None if self.mapping.classes is None else self.mapping.classes.labels
        return self.with_classes(None if labels is None else labels[row : row + 1])

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, beta: float = 0.998) -> None:
        """Updates the latent average: ``w_avg <- mean(w) + beta * (w_avg - mean(w))``.

        Args:
            w: Codes without truncation, ``(B, w_dim)`` or ``(B, num_ws, w_dim)``, of which the first row is read.
            beta: Weight of the previous average.
        """
        w = w.detach()[:, 0] if w.ndim == 3 else w.detach()
        average = self.mapping.w_avg
        average.copy_(w.to(average.dtype).mean(dim=0).lerp(average, beta))

    def freeze(self, *, dtype: torch.dtype | None = None, recompute: bool | None = None) -> Generator:
        """Sets evaluation mode, switches off all weight gradients and switches on the fast path.

        On a CPU the synthesis network then runs as one function (see :mod:`.fused_synthesis`), with constants that are
        computed once from the weights and again when the weights change. The modules run while weights require
        gradients. The memory of activations is kept from one backward to the next forward;
        ``synthesis.fused.clear_activations()`` frees it.

        Args:
            dtype: ``torch.bfloat16`` for the convolutions and activations on the CPU from 64 pixels on, at 60 dB from
                single precision. It is fast where the CPU has instructions for it (avx512_bf16, amx), slow elsewhere.
            recompute: Whether backward computes the last layer's activation, the largest of all, again instead of
                keeping it: 5 % slower, a quarter less memory. None does so where it is larger than 64 MB. Where the
                modules run (on a GPU), True keeps the input of each resolution alone; None keeps everything.

        Returns:
            The generator itself.

        Raises:
            UserError: Another dtype, or options that a generator of style "adain" does not have.
        """
        if dtype not in (None, torch.bfloat16, torch.float32):
            raise UserError(f"a frozen generator computes in float32 or bfloat16, got {dtype}")
        self.eval().requires_grad_(False)
        if isinstance(self.synthesis, AdaINSynthesis):
            if dtype == torch.bfloat16 or recompute:
                raise UserError("a generator of style adain is frozen in float32 and keeps its activations")
            return self
        for layer in self.synthesis.layers():
            layer.cache_squares = True
        self.synthesis.recompute_blocks = bool(recompute)
        low = dtype if dtype == torch.bfloat16 else None
        self.synthesis.fused = FusedSynthesis(enabled=True, dtype=low, recompute=recompute)
        return self

    def forward(
        self,
        z: Tensor,
        psi: float = 1.0,
        noise: str | Sequence[Tensor] = "const",
        *,
        cutoff: int | None = None,
        c: Tensor | None = None,
    ) -> Tensor:
        """Returns images ``(B, img_channels, R, R)`` of ``z`` ``(B, z_dim)``.

        Args:
            z: Standard normal.
            psi: Truncation, see :meth:`.MappingNetwork.forward`.
            noise: See :meth:`.SynthesisBase.forward`.
            cutoff: See :meth:`.MappingNetwork.forward`.
            c: Condition ``(B, c_dim)`` of a conditional generator.
        """
        image: Tensor = self.synthesis(self.mapping(z, psi, cutoff, c=c), noise=noise)
        return image
