"""The original StyleGAN in float64, from its formulae and on the variables of its TensorFlow networks."""

from __future__ import annotations

import numpy as np

Variables = dict[str, np.ndarray]


def variables(resolution: int, channels: dict[int, int], seed: int = 0, *, z: int = 5, w: int = 6, depth: int = 3):
    """Random variables with the names and shapes of a TensorFlow generator: ``synthesis/8x8/Conv1/weight``."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    out: Variables = {"dlatent_avg": draw(w), "lod": np.float32(0), "synthesis/lod": np.float32(0)}
    for i in range(depth):
        out[f"mapping/Dense{i}/weight"] = draw(z if i == 0 else w, w) * 100
        out[f"mapping/Dense{i}/bias"] = draw(w) * 30
    number = 0
    before = 0
    levels = int(np.log2(resolution))
    for level in range(2, levels + 1):
        r = 2**level
        c = channels[r]
        for name in ("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1"):
            scope = f"synthesis/{r}x{r}/{name}"
            if name == "Const":
                out[f"{scope}/const"] = draw(1, c, 4, 4)
            else:
                out[f"{scope}/weight"] = draw(3, 3, before if name == "Conv0_up" else c, c)
            out[f"{scope}/Noise/weight"] = draw(c)
            out[f"{scope}/bias"] = draw(c)
            out[f"{scope}/StyleMod/weight"] = draw(w, 2 * c)
            out[f"{scope}/StyleMod/bias"] = draw(2 * c)
            out[f"synthesis/noise{number}"] = draw(1, 1, r, r)
            number += 1
        out[f"synthesis/ToRGB_lod{levels - level}/weight"] = draw(1, 1, c, 3)
        out[f"synthesis/ToRGB_lod{levels - level}/bias"] = draw(3)
        before = c
    return out


def _lrelu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def _dense(x: np.ndarray, weight: np.ndarray, gain: float, lrmul: float = 1.0) -> np.ndarray:
    return x @ (weight.astype(np.float64) * (gain / np.sqrt(weight.shape[0]) * lrmul))


def mapping(v: Variables, z: np.ndarray) -> np.ndarray:
    """(B, Z) -> (B, D)."""
    x = z / np.sqrt((z**2).mean(axis=1, keepdims=True) + 1e-8)
    for i in range(sum("/Dense" in key and key.endswith("weight") for key in v)):
        bias = v[f"mapping/Dense{i}/bias"].astype(np.float64)
        x = _lrelu(_dense(x, v[f"mapping/Dense{i}/weight"], np.sqrt(2), 0.01) + 0.01 * bias)
    return x


def _correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """3x3 with zeros around: (B, I, H, W), (3, 3, I, O) -> (B, O, H, W)."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, w = x.shape[2:]
    return sum(
        np.einsum("bihw,io->bohw", padded[:, :, a : a + h, b : b + w], kernel[a, b]) for a in range(3) for b in range(3)
    )


def _double(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, axis=2).repeat(2, axis=3)


def _fused(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Upscaling and convolution as one transposed convolution of stride 2: each input pixel paints a 4x4 patch."""
    patch = np.zeros((4, 4, *kernel.shape[2:]))
    for a in (0, 1):
        for b in (0, 1):
            patch[a : a + 3, b : b + 3] += kernel
    n, _, h, w = x.shape
    canvas = np.zeros((n, kernel.shape[3], 2 * h + 2, 2 * w + 2))
    for i in range(h):
        for j in range(w):
            canvas[:, :, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("bi,klio->bokl", x[:, :, i, j], patch)
    return canvas[:, :, 1:-1, 1:-1]


def _blur(x: np.ndarray) -> np.ndarray:
    taps = np.array([1, 2, 1]) / 4
    kernel = np.outer(taps, taps)[:, :, None, None] * np.eye(x.shape[1])
    return _correlate(x, kernel)


def synthesis(v: Variables, w: np.ndarray, *, noise: bool = True, fused_from: int = 128, size: int | None = None):
    """(B, L, D) -> the picture of each resolution, {r: (B, 3, r, r)}."""
    pictures = {}
    x = np.zeros((1, 1, 4, 4))
    number = 0
    for r in sorted({int(key.split("/")[1].split("x")[0]) for key in v if key.endswith("/StyleMod/bias")}):
        for name in ("Const", "Conv") if r == 4 else ("Conv0_up", "Conv1"):
            scope = f"synthesis/{r}x{r}/{name}"
            if name == "Const":
                x = v[f"{scope}/const"].astype(np.float64).repeat(len(w), axis=0)
            else:
                kernel = v[f"{scope}/weight"].astype(np.float64)
                kernel = kernel * (np.sqrt(2) / np.sqrt(9 * kernel.shape[2]))
                if name == "Conv0_up":
                    x = _blur(_fused(x, kernel) if r >= fused_from else _correlate(_double(x), kernel))
                else:
                    x = _correlate(x, kernel)
            if noise:
                x = x + v[f"synthesis/noise{number}"] * v[f"{scope}/Noise/weight"][:, None, None]
            x = _lrelu(x + v[f"{scope}/bias"][:, None, None].astype(np.float64))
            x = x - x.mean(axis=(2, 3), keepdims=True)
            x = x / np.sqrt((x**2).mean(axis=(2, 3), keepdims=True) + 1e-8)
            style = _dense(w[:, number], v[f"{scope}/StyleMod/weight"], 1.0) + v[f"{scope}/StyleMod/bias"]
            style = style.reshape(len(w), 2, -1, 1, 1)
            x = x * (style[:, 0] + 1) + style[:, 1]
            number += 1
        lod = int(np.log2(max(int(k.split("/")[1].split("x")[0]) for k in v if "StyleMod" in k) // r))
        weight = v[f"synthesis/ToRGB_lod{lod}/weight"][0, 0].astype(np.float64) / np.sqrt(x.shape[1])
        pictures[r] = np.einsum("bihw,io->bohw", x, weight) + v[f"synthesis/ToRGB_lod{lod}/bias"][:, None, None]
    return pictures


def to_interfacegan(v: Variables, fused_from: int = 128) -> Variables:
    """The state dict that InterFaceGAN's port holds of these variables, written from its table of names."""
    out: Variables = {
        "truncation.w_avg": v["dlatent_avg"],
        "truncation.truncation": np.ones((1, 2, 1), np.float32),
        "synthesis.lod": v["synthesis/lod"],
    }
    blur = np.outer([1, 2, 1], [1, 2, 1]).astype(np.float32) / 16
    for key, value in v.items():
        part = key.split("/")
        if part[0] == "mapping":
            name = "linear.weight" if part[2] == "weight" else "wscale.bias"
            out[f"mapping.dense{part[1][5:]}.{name}"] = value.T
        elif part[0] == "synthesis" and part[1].startswith("noise"):
            out[f"synthesis.layer{part[1][5:]}.epilogue.apply_noise.noise"] = value
        elif part[0] == "synthesis" and "x" in part[1]:
            r = int(part[1].split("x")[0])
            layer = f"synthesis.layer{2 * int(np.log2(r)) - 4 + (part[2] in ('Conv', 'Conv1'))}"
            leaf = "/".join(part[3:])
            if leaf == "const":
                out[f"{layer}.first_layer"] = value
            elif leaf == "weight" and part[2] == "Conv0_up":
                out[f"{layer}.blur.kernel"] = np.tile(blur, (value.shape[3], 1, 1, 1))
                if r >= fused_from:
                    out[f"{layer}.weight"] = value
                else:
                    out[f"{layer}.conv.weight"] = value.transpose(3, 2, 0, 1)
            elif leaf == "weight":
                out[f"{layer}.conv.weight"] = value.transpose(3, 2, 0, 1)
            else:
                names = {"Noise/weight": "apply_noise.weight", "bias": "bias"}
                names |= {"StyleMod/weight": "style_mod.dense.linear.weight"}
                names |= {"StyleMod/bias": "style_mod.dense.wscale.bias"}
                out[f"{layer}.epilogue.{names[leaf]}"] = value.T
        elif part[0] == "synthesis" and part[1].startswith("ToRGB"):
            lods = max(int(k.split("_lod")[1].split("/")[0]) for k in v if "ToRGB" in k)
            name = f"synthesis.output{lods - int(part[1][9:])}"
            out[f"{name}.{'conv.weight' if part[2] == 'weight' else 'bias'}"] = (
                value.transpose(3, 2, 0, 1) if part[2] == "weight" else value
            )
    return out
