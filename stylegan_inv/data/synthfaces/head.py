"""The head of a SynthFaces portrait: pose, ray intersection, and the relief of the face."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.appearance import Colours, Light
from stylegan_inv.data.synthfaces.canvas import F32, Array, Canvas, Params, at_least, bell, choose, coverage, smooth
from stylegan_inv.data.synthfaces.hairstyle import HairStyle
from stylegan_inv.data.synthfaces.pixels import Maps

_CENTRE_Y = 0.02
_PIVOT = (0.0, -0.05, 0.42)  # centre of rotation, in front of the neck, as a crop around a face follows the face


class Head(Maps):
    """The quantities of the head that several layers use. Maps are (B, R, R), parameters (B, 1, 1).

    Args:
        p: Factors of the faces.
        canvas: Canvas to paint on.
    """

    normal: tuple[Array, Array, Array]

    def __init__(self, p: Params, canvas: Canvas) -> None:
        self.px = canvas.px
        self.old = smooth(p.age, 38, 80)
        yaw, pitch = np.deg2rad(p.yaw), np.deg2rad(p.pitch)
        c, s, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
        self.basis = (c, s, cp, sp)
        px0, py0, pz0 = _PIVOT
        pz1 = -s * px0 + c * pz0
        self.shift = (c * px0 + s * pz0 - px0, cp * py0 + sp * pz1 - py0)
        xv, yv = canvas.x + self.shift[0], canvas.y + self.shift[1]
        z1 = sp * yv
        self.origin = (c * xv - s * z1, cp * yv + 0 * xv, s * xv + c * z1)  # head coordinates where view depth is 0
        self.ray = (-s * cp, -sp, c * cp)  # towards the viewer

        self.width = 0.525 * (1 + 0.035 * p.face_width) + 0.008 * p.gender
        self.top = 0.78 + 0.012 * p.forehead
        self.bottom = 0.765 * (1 + 0.03 * p.face_length) + 0.012 * p.gender + 0.015 * p.chin
        self.depth = 0.66 + 0.01 * p.face_width
        self.jaw = 0.055 * p.jaw_width + 0.05 * p.gender
        self.style = HairStyle(p)
        self.light = Light(p)
        self.colours = Colours(p, self.old)
        self._ellipsoid()
        self._features(p)
        # The neck is below the back of the head.
        self.neck_x = s * -0.10 - self.shift[0]

    def intersect(
        self,
        centre: tuple[float, float, float],
        width: Array,
        top: Array,
        bottom: Array,
        depth: Array,
        jaw: Array | None = None,
        steps: int = 3,
    ) -> tuple[Array, Array, Array, Array, tuple[Array, Array, Array]]:
        """Intersects the rays with an ellipsoid whose upper and lower half differ, and whose width varies with y.

        Each step keeps the shape of the last estimate of y and solves the quadratic equation exactly. It converges
        fast, as pitch is small. A ray that misses gives its point closest to the surface.

        Args:
            centre: Centre of the ellipsoid in head coordinates.
            width: Half axis in x.
            top: Half axis in y, above the centre.
            bottom: Half axis in y, below the centre.
            depth: Half axis in z.
            jaw: Relative change of the width at the jaw; None for no change.
            steps: Number of iterations.

        Returns:
            Signed distance to the outline (positive inside), x, y and z of the hit, and its normal.
        """
        (ox, oy, oz), (ex, ey, ez) = self.origin, self.ray
        qx0, qy0, qz0 = ox - centre[0], oy - centre[1], oz - centre[2]
        y = qy0 + ey * depth * F32(0.6)
        iz = 1 / depth
        az, bz = qz0 * iz, ez * iz
        azz, azbz = az * az, az * bz
        for _ in range(steps):
            iy = choose(y > 0, 1 / top, 1 / bottom)
            ix = 1 / width
            if jaw is not None:
                low = (y + 0.50) * F32(1 / 0.24)
                ix = ix / (1 + jaw * np.exp(-low * low))
            ax, ay = qx0 * ix, qy0 * iy
            bx, by = ex * ix, ey * iy
            aa = bx * bx + by * by + bz * bz
            bb = ax * bx + ay * by + azbz
            cc = ax * ax + ay * ay + azz
            t = (np.sqrt(at_least(bb * bb - aa * (cc - 1), 0)) - bb) / aa
            y = qy0 + t * ey
        nx, ny, nz = (ax + t * bx) * ix, (ay + t * by) * iy, (az + t * bz) * iz
        slope = np.sqrt(nx * nx + ny * ny + nz * nz)
        inv = 1 / slope
        miss = np.sqrt(cc - bb * bb / aa)
        distance = (1 - miss) * at_least(miss, 0.3) * inv
        return (distance, ox + t * ex, oy + t * ey, oz + t * ez, (nx * inv, ny * inv, nz * inv))

    def _relief(self, p: Params, x: Array, y: Array) -> Array:
        """Returns the height of the nose over the ellipsoid, which causes the parallax."""
        return self.nose_height * bell(x / self.nose_side, 0 * y) * self._nose_profile(y)

    def _nose_profile(self, y: Array) -> Array:
        """Returns the height profile of the nose: it rises from the bridge to the tip and falls fast below the tip."""
        t = (self.bridge_y - y) / (self.bridge_y - self.tip_y)  # 0 at the bridge, 1 at the tip
        rise = np.clip(t, 0, 1)
        rise = rise * (0.55 + 0.45 * rise) + self.hook * rise * (1 - rise)
        return at_least(rise * (1 - smooth(t, 1.0, 1.42)), 0) + 0.14 * (1 - smooth(np.abs(t), 0.0, 0.6))

    def _ellipsoid(self) -> None:
        """Intersects the rays with the ellipsoid, without nose and cheeks."""
        self.distance, self.x, self.y, self.z, self.normal = self.intersect(
            (0.0, _CENTRE_Y, 0.0), self.width, self.top, self.bottom, self.depth, self.jaw
        )
        self.ax = np.abs(self.x)
        self.alpha = coverage(self.distance, self.px)
        self.covers = self.alpha > 0

    def _features(self, p: Params) -> None:
        """Computes the positions of the facial features in head coordinates."""
        self.eye_y = F32(0.06)
        self.eye_x = 0.222 + 0.011 * p.eye_spacing
        self.tip_y = -0.185 - 0.028 * p.nose_length - 0.02 * self.old
        self.bridge_y = self.eye_y + 0.05
        self.nose_height = 0.17 + 0.014 * p.nose_length + 0.012 * p.gender
        self.nose_side = 0.082 * (1 + 0.12 * p.nose_width)
        self.hook = 0.25 * p.nose_bridge
        self.mouth_y = self.tip_y * 0.4 - 0.345 - 0.012 * p.face_length

    def add_relief(self, p: Params) -> None:
        """Adds nose and other relief: moves the hit of each ray to the surface, and turns the normals to view space."""
        nx, ny, nz = self.normal
        ex, ey, ez = self.ray
        x, y = x0, y0 = self.x, self.y
        front = at_least(nz, 0) / at_least(nx * ex + ny * ey + nz * ez, 0.25)
        for _ in range(3):
            lift = self._relief(p, x, y) * front
            # Damping is necessary as the far side of the nose is steeper than the ray.
            x = x + 0.75 * (x0 + ex * lift - x)
            y = y + 0.75 * (y0 + ey * lift - y)
        self.x, self.y = x, y
        self.ax = np.abs(x)
        self._normals(p, nx, ny, nz)

    def _normals(self, p: Params, nx: Array, ny: Array, nz: Array) -> None:
        x, y, ax = self.x, self.y, self.ax
        side = np.sign(x)
        profile = self._nose_profile(y)
        across = bell(x / self.nose_side, 0 * x[:1])
        h = self.nose_height
        gx = h * profile * across * (-2 * x / self.nose_side**2)
        e = F32(0.02)
        gy = h * across * (self._nose_profile(y + e) - self._nose_profile(y - e)) * F32(0.5 / e)
        # Bumps of the face in head coordinates, symmetric in x: height, x, y, width in x, width in y.
        ey_, exx, my = self.eye_y, self.eye_x, self.mouth_y
        bumps = (
            (0.030 + 0.012 * p.gender, exx * 0.95, ey_ + 0.15, 0.20, 0.075),  # brow ridge
            (-0.048, exx, ey_ + 0.015, 0.13, 0.085),  # eye sockets
            (0.034, exx, ey_ + 0.0, 0.085, 0.055),  # eyeball under the lids
            (0.050 + 0.014 * p.cheekbones + 0.028 * p.smile, 0.30, -0.13 + 0.03 * p.smile, 0.15, 0.13),  # cheeks
            (-0.020 * (1 + 0.8 * self.old) - 0.008 * p.cheekbones, 0.34, -0.38, 0.12, 0.16),  # below the cheeks
            (0.034, self.nose_side * 0.95, self.tip_y - 0.02, 0.052, 0.05),  # wings of the nose
            (0.042, 0.0, my + 0.0, 0.20, 0.10),  # muzzle
            (0.050 + 0.012 * p.chin, 0.0, my - 0.24, 0.14, 0.10),  # chin
            (-0.030, 0.0, my - 0.125, 0.13, 0.045),  # fold below the lip
        )
        for height, cx, cy, sx, sy in bumps:
            u, v = (ax - cx) * F32(1 / sx), (y - cy) * F32(1 / sy)
            g = bell(u, v) * (2 * height)
            gx = gx - side * g * u * F32(1 / sx)
            gy = gy - g * v * F32(1 / sy)
        front = at_least(nz, 0)
        nx, ny = nx - front * gx, ny - front * gy
        inv = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
        self.normal = self.to_view(nx * inv, ny * inv, nz * inv)

    def to_view(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Rotates directions from head to view coordinates."""
        c, s, cp, sp = self.basis
        z1 = c * z - s * x
        return c * x + s * z, cp * y + sp * z1, cp * z1 - sp * y

    def project(self, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
        """Projects points from head to image coordinates."""
        vx, vy, _ = self.to_view(x, y, z)
        return vx - self.shift[0], vy - self.shift[1]

    def ear(self, side: int) -> tuple[Array, Array]:
        """Returns the image coordinates of the centre of an ear, on the left (-1) or right (1) side of the image."""
        zero = 0 * self.width
        return self.project(side * (self.width + 0.005), F32(-0.03) + zero, F32(-0.06) + zero)

    def at_depth(self, z: Array | float) -> tuple[Array, Array]:
        """Returns head x and y at which each ray crosses a plane of constant head z."""
        (ox, oy, oz), (ex, ey, ez) = self.origin, self.ray
        t = (z - oz) / ez
        return ox + t * ex, oy + t * ey
