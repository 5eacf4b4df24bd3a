"""Where a face is in an image, compared with where FFHQ's alignment puts it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_inv.data.alignment.face_alignment import face_quad

#: Largest offset of an aligned face. dlib's landmarks are off by about 5 % of the distance between the eyes. If both
#: eyes are off in opposite directions, that distance changes by 10 %, and with it the side of the square, so that its
#: corners move by 0.1 / sqrt(2) = 0.07 sides. Twice this is allowed; a face aligned in another way is further off.
MAX_OFFSET = 0.15
#: Smallest side of the square of a face that is not called small, in sides of the image.
MIN_SCALE = 0.5


@dataclass(frozen=True)
class Placement:
    """The square that FFHQ's alignment would cut out, compared with the whole image.

    Attributes:
        offset: Largest distance of a corner of the square from that of the image, in sides of the image.
        scale: Side of the square, in sides of the image.
    """

    offset: float
    scale: float

    @classmethod
    def of(cls, landmarks: np.ndarray, size: int) -> Placement:
        """Returns the placement of a face.

        Args:
            landmarks: Landmarks (68, 2) in pixels, see `face_quad`.
            size: Side length of the image in pixels.

        Raises:
            UserError: Landmarks that coincide.
        """
        quad = face_quad(landmarks)
        image = np.array([[0, 0], [0, size], [size, size], [size, 0]], dtype=np.float64)
        offset = np.hypot(*(quad - image).T).max() / size
        return cls(float(offset), float(np.hypot(*(quad[3] - quad[0])) / size))

    @property
    def is_aligned(self) -> bool:
        """Whether the face is where FFHQ's alignment puts it, up to the error of the landmarks."""
        return self.offset <= MAX_OFFSET

    @property
    def is_small(self) -> bool:
        """Whether the face fills far less of the image than an aligned one."""
        return self.scale < MIN_SCALE
