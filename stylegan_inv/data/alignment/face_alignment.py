"""The alignment of FFHQ: rotates and crops a portrait so that eyes and mouth have the same place in every image.

Source: Karras et al. 2019, appendix C, and NVlabs/ffhq-dataset, ``download_ffhq.py`` (68 landmarks). Any output size.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from stylegan_inv.errors import UserError

LANDMARKS = 68
_LEFT_EYE, _RIGHT_EYE, _MOUTH = slice(36, 42), slice(42, 48), (48, 54)
#: Largest side of a face, in sides of the image. Larger faces come from wrong landmarks.
_MAX_SIDE = 10
#: No image has a side of so many pixels.
_MOST_PIXELS = 1e9


def face_quad(landmarks: np.ndarray) -> np.ndarray:
    """Returns the square around a face.

    Args:
        landmarks: Landmarks ``(68, 2)`` in pixels, x to the right and y down, in the order of iBUG 300-W.

    Returns:
        Corners ``(4, 2)`` in float64: top left, bottom left, bottom right, top right.

    Raises:
        UserError: Landmarks of another shape, that are not finite, or that coincide.
    """
    with np.errstate(all="ignore"):
        return _face_quad(np.asarray(landmarks, dtype=np.float64))


def _face_quad(points: np.ndarray) -> np.ndarray:
    if points.shape != (LANDMARKS, 2) or not np.isfinite(points).all():
        raise UserError(f"landmarks of shape {points.shape}, expected ({LANDMARKS}, 2) finite numbers")
    left, right = points[_LEFT_EYE].mean(0), points[_RIGHT_EYE].mean(0)
    eyes, mouth = (left + right) / 2, points[list(_MOUTH)].mean(0)
    across, down = right - left, mouth - eyes
    # The tilt of the head is the mean of two directions: between the eyes, and perpendicular to eyes-mouth.
    x = across - _rotated(down)
    length = np.hypot(*x)
    if length == 0 or (scale := max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))) == 0:
        raise UserError("landmarks whose eyes and mouth coincide")
    x *= scale / length
    y = _rotated(x)
    centre = eyes + 0.1 * down
    quad = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    if not np.abs(quad).max() < _MOST_PIXELS:  # also NaN, from sums that overflow
        raise UserError("landmarks that are in no image")
    return quad


def _rotated(vector: np.ndarray) -> np.ndarray:
    return np.array([-vector[1], vector[0]])


def align_face(
    image: Image.Image, landmarks: np.ndarray, size: int = 1024, supersampling: int = 4, padding: bool = True
) -> Image.Image:
    """Crops and rotates a face.

    Args:
        image: RGB image.
        landmarks: See :func:`face_quad`.
        size: Side of the result in pixels.
        supersampling: The face is rotated at this multiple of ``size`` and then downsampled (FFHQ: 4; pSp's script: 1).
        padding: Extends the image by its blurred reflection where the square leaves it. False extends it by black.

    Returns:
        The aligned face. As in the official code, pixel (i, j) of the result samples the corner that four pixels
        share, half a pixel from its centre.

    Raises:
        UserError: Landmarks that do not fit the image.
    """
    quad = face_quad(landmarks)
    side = np.hypot(*(quad[3] - quad[0]))
    if side > _MAX_SIDE * max(image.size):
        raise UserError(f"landmarks of a face of {side:.0f} px in an image of {image.width} x {image.height} px")
    image, quad, side = _reduced(image, quad, side, size)
    border = max(int(np.rint(side * 0.1)), 3)
    image, quad = _cropped(image, quad, border)
    if padding:
        image, quad = _extended(image, quad, side, border)
    inner = size * supersampling
    corners = tuple((quad + 0.5).flatten().tolist())
    face = image.transform((inner, inner), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR)
    return face if inner == size else face.resize((size, size), Image.Resampling.LANCZOS)


def _reduced(image: Image.Image, quad: np.ndarray, side: float, size: int) -> tuple[Image.Image, np.ndarray, float]:
    """Downsamples an image that is more than twice as large as necessary."""
    shrink = int(np.floor(side / size * 0.5))
    if shrink <= 1:
        return image, quad, side
    reduced = tuple(max(1, int(np.rint(length / shrink))) for length in image.size)
    return image.resize(reduced, Image.Resampling.LANCZOS), quad / shrink, side / shrink  # type: ignore[arg-type]


def _cropped(image: Image.Image, quad: np.ndarray, border: int) -> tuple[Image.Image, np.ndarray]:
    low = np.maximum(np.floor(quad.min(0)).astype(int) - border, 0)
    high = np.minimum(np.ceil(quad.max(0)).astype(int) + border, image.size)
    if (high <= low).any():
        raise UserError(f"landmarks outside of the image of {image.width} x {image.height} px")
    return image.crop((*low.tolist(), *high.tolist())), quad - low


def _extended(image: Image.Image, quad: np.ndarray, side: float, border: int) -> tuple[Image.Image, np.ndarray]:
    """Extends an image by its reflection, which fades into a blur and then into the median colour."""
    low = np.maximum(border - np.floor(quad.min(0)).astype(int), 0)
    high = np.maximum(np.ceil(quad.max(0)).astype(int) - image.size + border, 0)
    if max(*low, *high) <= border - 4:
        return image, quad
    low, high = (np.maximum(pad, max(int(np.rint(side * 0.3)), 1)) for pad in (low, high))
    around = ((low[1], high[1]), (low[0], high[0]), (0, 0))
    pixels = np.pad(np.asarray(image, dtype=np.float32), around, "reflect")
    outside = np.maximum(*(_outside(pixels.shape[1 - axis], low[axis], high[axis], axis) for axis in (0, 1)))
    outside = outside[..., None]
    sigma = side * 0.02
    pixels += (gaussian_filter(pixels, [sigma, sigma, 0]) - pixels) * np.clip(outside * 3.0 + 1.0, 0.0, 1.0)
    pixels += (np.median(pixels, axis=(0, 1)) - pixels) * np.clip(outside, 0.0, 1.0)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)), quad + low


def _outside(length: int, low: int, high: int, axis: int) -> np.ndarray:
    """Returns 1 at the edges of the padding, 0 at those of the image, less inside; broadcasts along ``axis``."""
    position = np.arange(length, dtype=np.float32)
    depth = np.minimum(position / np.float32(low), (length - 1 - position) / np.float32(high))
    return np.expand_dims(1.0 - depth, axis)
