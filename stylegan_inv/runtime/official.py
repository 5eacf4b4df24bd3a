"""A method out of one file of the papers' code: pSp, e4e, ReStyle over either, IntereStyle, W encoders, GANInverter."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from stylegan_inv.encoders.checkpoints import build_encoder, checkpoint_generator, read_checkpoint
from stylegan_inv.errors import UserError
from stylegan_inv.methods.base import InversionMethod
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.runtime.weights import TABLE, fetch, file_hash


def load_official(
    source: str | Path,
    device: str | torch.device = "cpu",
    *,
    progressive: bool | None = None,
    offline: bool | None = None,
) -> InversionMethod:
    """Rebuild a method from an official checkpoint, ready to invert; nothing in the file is executed.

    Encoders of six channels, which see an image beside its reconstruction, become ReStyle (with the file's number of
    iterations); others pSp, whose inversion is that of e4e too: the difference lies in the encoder and in training.

    Args:
        source: A file, our own conversion of one, or a name of the weights table.
        device: Where to put it.
        progressive: Whether the encoder is e4e's, for files whose options do not say.
        offline: Never download; None: as the environment says.

    Returns:
        The method in evaluation mode, frozen.

    Raises:
        UserError: A file that cannot be read, or that holds no encoder and generator that fit together.
    """
    path = fetch(source, offline=offline) if str(source) in TABLE else Path(source).expanduser()
    checkpoint = read_checkpoint(path)
    try:
        if checkpoint.others:
            raise UserError(f"holds {', '.join(checkpoint.others)} besides an encoder: no method here uses them yet")
        encoder = build_encoder(checkpoint, progressive=progressive)
        if checkpoint.latent_avg is None:
            raise UserError("has no latent_avg: its codes are absolute, and methods here predict what to add to it")
        generator, _ = checkpoint_generator(checkpoint)
        if (encoder.num_ws, encoder.w_dim) != (generator.num_ws, generator.w_dim):
            raise UserError(
                f"has an encoder for codes {(encoder.num_ws, encoder.w_dim)} and a generator for "
                f"{(generator.num_ws, generator.w_dim)}"
            )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    generator.source_hash = file_hash(path)

    def built(**_: int) -> nn.Module:
        return encoder

    method: InversionMethod
    if encoder.in_channels == 6:
        iterations = checkpoint.opts.get("n_iters_per_batch", 5)
        method = ReStyle(generator=generator, encoder=built, iterations=iterations if type(iterations) is int else 5)
    else:
        method = PSP(generator=generator, encoder=built, in_channels=encoder.in_channels)
    return method.to(device).eval().requires_grad_(False)
