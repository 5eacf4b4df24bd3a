"""Writes photo.png, a held-out SynthFace, and scribbled.png, with dark spots on the eyes and red lips."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.data.synthfaces.dataset import SynthFaces

photo: Image.Image = to_pil(torch.as_tensor(SynthFaces(64, seed=2, size=1, start=34)[0]["image"]))
photo.save("photo.png")
pen = ImageDraw.Draw(photo)
pen.ellipse((20, 25, 30, 33), fill=(25, 25, 30))
pen.ellipse((33, 25, 43, 33), fill=(25, 25, 30))
pen.line((30, 28, 33, 28), fill=(25, 25, 30), width=1)
pen.ellipse((26, 42, 37, 46), fill=(190, 30, 40))
photo.save("scribbled.png")
