"""SynthFaces: determinism, consistency over resolutions, effects of the factors, labels, masks, distributions."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from stylegan_inv.data.synthfaces import pixels as synthfaces_pixels
from stylegan_inv.data.synthfaces.correlated_normals import normals, obstacle_parameters
from stylegan_inv.data.synthfaces.dataset import LABELS, SynthFaces, sample_identity_pairs
from stylegan_inv.data.synthfaces.factor_specs import (
    FACTORS,
    IDENTITY_FACTORS,
    NUM_NORMALS,
    SPECS,
    VECTOR_NAMES,
    Choice,
)
from stylegan_inv.data.synthfaces.factors import Factors, factors_from_normals, override_factors
from stylegan_inv.data.synthfaces.render import render
from stylegan_inv.errors import UserError

HERE = Path(__file__).parent
PLAIN = {"eyeglasses": "none", "beard": "none", "hair_style": "short", "yaw": 0.0, "pitch": 0.0, "background": "plain"}


def faces(count: int = 16, seed: int = 0, **overrides: object) -> Factors:
    return override_factors(factors_from_normals(normals(seed, range(count))), overrides)


def centroid(label: np.ndarray, name: str, axis: str) -> np.ndarray:
    """Returns the mean position of a label in every image, in pixels; x to the right, y down."""
    where = label == LABELS.index(name)
    at = np.arange(label.shape[1])
    weights = where.sum(axis=1 if axis == "x" else 2)
    return (weights * at).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)


# --- image i is a pure function of (seed, i) ------------------------------------------------------------------------


def test_row_depends_on_seed_and_index_only() -> None:
    together = normals(3, [5, 900, 7])
    assert together.shape == (3, NUM_NORMALS) and together.dtype == np.float64
    for row, index in zip(together, [5, 900, 7], strict=True):
        np.testing.assert_array_equal(row, normals(3, [index])[0])
    assert not np.allclose(normals(3, [5]), normals(4, [5]))


def test_image_does_not_depend_on_batch_order_or_size() -> None:
    data = SynthFaces(64, seed=1, obstacles=0.5)
    order = [19, 3, 7, 0, 11, 30, 2, 18, 5, 1, 44, 8, 23, 6, 4, 9, 10, 40, 41]  # crosses a rendering chunk
    for index, item in zip(order, data.__getitems__(order), strict=True):
        alone = data[index]
        for key in ("image", "label", "mask", "obstacle", "normals", "factors"):
            assert torch.equal(item[key], alone[key]), key
        assert item["index"] == alone["index"] == index


def test_painting_selected_pixels_equals_painting_all(monkeypatch: pytest.MonkeyPatch) -> None:
    factors = faces(192, seed=7)
    quick = render(factors, 48)
    # Paints every layer on every pixel.
    monkeypatch.setattr(synthfaces_pixels.Pixels, "__init__", everywhere)
    whole = render(factors, 48)
    np.testing.assert_array_equal(quick.image, whole.image)
    np.testing.assert_array_equal(quick.label, whole.label)
    np.testing.assert_allclose(quick.mask, whole.mask, rtol=0, atol=1e-5)


def everywhere(self: synthfaces_pixels.Pixels, inside: np.ndarray) -> None:
    """Selects all pixels of the images that have the layer; without glasses there is no frame to paint."""
    has = inside.any(axis=(1, 2), keepdims=True)
    self.inside = np.ascontiguousarray(np.broadcast_to(has, inside.shape))
    self.shape, self.index = inside.shape, np.flatnonzero(self.inside)


def test_start_shifts_the_sequence() -> None:
    assert torch.equal(SynthFaces(32, start=100)[3]["image"], SynthFaces(32)[103]["image"])


def test_images_do_not_depend_on_workers() -> None:
    data = SynthFaces(32, seed=2, size=12, obstacles=0.3)
    batches = [list(DataLoader(data, batch_size=4, num_workers=n)) for n in (0, 2)]
    for a, b in zip(*batches, strict=True):
        for key in a:
            assert torch.equal(a[key], b[key]), key


def test_dataset_and_factors_pickle() -> None:
    data = pickle.loads(pickle.dumps(SynthFaces(32, overrides={"yaw": 5.0})))
    assert torch.equal(data[0]["image"], SynthFaces(32, overrides={"yaw": 5.0})[0]["image"])
    assert np.array_equal(pickle.loads(pickle.dumps(faces(2))).yaw, faces(2).yaw)


# Mean of R, G, B in [0, 255] of images 0 to 5 at 64 px (seed 0). The shipped networks were trained on these faces:
# after a change every embedded asset has to be made again.
GOLDEN_MEANS = np.array(
    [
        [135.307, 122.893, 90.302],
        [96.314, 102.997, 90.522],
        [144.142, 136.909, 127.360],
        [112.684, 106.361, 90.211],
        [89.763, 105.025, 79.074],
        [132.232, 97.145, 83.478],
    ]
)
GOLDEN_NORMALS = [2.9870619384638273, -1.5116418588030038, 2.074239968345294, -1.0065791162440845]


def test_golden_normals() -> None:
    np.testing.assert_allclose(normals(0, [0])[0, :4], GOLDEN_NORMALS, rtol=0, atol=1e-12)


def test_golden_means() -> None:
    image = render(faces(len(GOLDEN_MEANS)), 64).image
    # Tolerance: another libm or SIMD width may round a few pixels differently by one level.
    np.testing.assert_allclose(image.mean(axis=(1, 2)), GOLDEN_MEANS, rtol=0, atol=0.02)


def test_golden_images_and_labels() -> None:
    """Images 0 to 7 of seed 0, with obstacles, equal the stored ones; the shipped networks were trained on seed 0."""
    out = render(faces(8), 64, obstacle_parameters(0, range(8), 0.5))
    stored = {kind: np.asarray(Image.open(HERE / f"synthfaces_{kind}.png")) for kind in ("images", "labels")}
    difference = np.concatenate(list(out.image), axis=1).astype(int) - stored["images"]
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3, "another libm may round differently"
    assert (np.concatenate(list(out.label), axis=1) != stored["labels"]).mean() < 1e-3


# --- resolution -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resolution", [32, 50, 64, 256])
def test_shapes_and_ranges(resolution: int) -> None:
    out = render(faces(3), resolution, obstacle_parameters(0, range(3), 1.0))
    assert out.image.shape == (3, resolution, resolution, 3) and out.image.dtype == np.uint8
    assert out.label.shape == out.mask.shape == out.obstacle.shape == (3, resolution, resolution)
    assert out.label.dtype == np.uint8 and out.mask.dtype == out.obstacle.dtype == np.float32
    assert 0 <= out.mask.min() and out.mask.max() <= 1 and 0 <= out.obstacle.min() and out.obstacle.max() <= 1
    assert out.label.max() < len(LABELS)


def test_averaged_128_is_64() -> None:
    factors = faces(24)
    low = render(factors, 64)
    high = render(factors, 128)
    boxed = high.image.reshape(24, 64, 2, 64, 2, 3).astype(float).mean(axis=(2, 4))
    difference = np.abs(boxed - low.image)
    assert difference.mean() < 1.5  # of 255
    assert np.median(difference.mean(axis=(1, 2, 3))) < 1.2
    mask = high.mask.reshape(24, 64, 2, 64, 2).mean(axis=(2, 4))
    assert np.abs(mask - low.mask).mean() < 0.004


def test_empty_batch() -> None:
    out = render(faces(4).take(slice(0, 0)), 64)
    assert out.image.shape == (0, 64, 64, 3) and out.mask.shape == (0, 64, 64)


# --- effects of the factors -------------------------------------------------------------------------------------------


def test_yaw_moves_the_face_to_the_right() -> None:
    def nose_side(yaw: float) -> np.ndarray:
        # The mouth moves relative to the skin, as the face turns while the head stays in place.
        label = render(faces(12, **{**PLAIN, "yaw": yaw}), 128).label
        return centroid(label, "mouth", "x") - centroid(label, "skin", "x")

    left, front, right = nose_side(-25.0), nose_side(0.0), nose_side(25.0)
    assert (right - front > 3).all() and (front - left > 3).all()


def test_frontal_face_is_centred_as_in_ffhq() -> None:
    label = render(faces(16, **PLAIN), 128).label
    eyes_y, eyes_x = centroid(label, "eyes", "y") / 128, centroid(label, "eyes", "x") / 128
    assert np.abs(eyes_y - 0.47).max() < 0.02 and np.abs(eyes_x - 0.496).max() < 0.02
    width = (label == 1).any(axis=1).sum(axis=1) / 128  # with the ears
    assert 0.5 < width.mean() < 0.68


def test_pitch_up_raises_the_face() -> None:
    low = centroid(render(faces(8, **{**PLAIN, "pitch": -10.0}), 128).label, "eyes", "y")
    high = centroid(render(faces(8, **{**PLAIN, "pitch": 10.0}), 128).label, "eyes", "y")
    assert (low - high > 2).all()


def test_smile_raises_and_widens_the_corners_of_the_mouth() -> None:
    def corners(smile: float) -> tuple[np.ndarray, np.ndarray]:
        label = render(faces(8, **{**PLAIN, "smile": smile, "mouth_open": 0.0}), 256).label
        lift, width = [], []
        for one in label == LABELS.index("mouth"):
            rows, columns = np.nonzero(one)
            ends = (columns < np.quantile(columns, 0.06)) | (columns > np.quantile(columns, 0.94))
            lift.append(np.median(rows) - rows[ends].mean())
            width.append(np.ptp(columns))
        return np.array(lift), np.array(width)

    (flat, narrow), (up, wide) = corners(0.0), corners(1.0)
    assert (up - flat > 3).all() and (wide - narrow > 4).all()


def test_open_mouth_is_larger() -> None:
    def area(value: float) -> np.ndarray:
        return (render(faces(8, **{**PLAIN, "mouth_open": value}), 128).label == 5).sum(axis=(1, 2))

    assert (area(1.0) > 1.2 * area(0.0)).all()


def test_glasses_appear_in_pixels_and_labels() -> None:
    out = {kind: render(faces(16, **{**PLAIN, "eyeglasses": kind}), 64) for kind in ("none", "clear", "sunglasses")}
    count = {kind: (one.label == 6).sum(axis=(1, 2)) for kind, one in out.items()}
    assert (count["none"] == 0).all() and (count["clear"] >= 8).all()
    assert (count["sunglasses"] > count["clear"]).all()
    eyes = out["none"].label == 3
    assert out["sunglasses"].image[eyes].mean() < 0.7 * out["none"].image[eyes].mean()


def test_age_greys_hair_and_keeps_the_background() -> None:
    young, old = (
        render(faces(16, **{**PLAIN, "age": age, "hair_colour": 0.4, "hair_redness": 0.5}), 64) for age in (20.0, 80.0)
    )
    hair = (young.label == 2) & (old.label == 2)
    chroma = [np.ptp(one.image[hair].astype(float), axis=1).mean() for one in (young, old)]
    assert chroma[1] < 0.55 * chroma[0]
    assert old.image[hair].mean() > 1.25 * young.image[hair].mean()
    background = (young.label == 0) & (old.label == 0) & (young.mask + old.mask == 0)
    background[:, 48:] = False  # pixels at the edge of the neck, whose skin ages
    assert np.array_equal(young.image[background], old.image[background])


def test_skin_tone_darkens() -> None:
    values = []
    for tone in (0.05, 0.5, 0.95):
        out = render(faces(8, **{**PLAIN, "skin_tone": tone}), 64)
        values.append(out.image[out.label == 1].mean())
    assert values[0] > values[1] + 20 > values[2] + 40


def test_light_comes_from_its_side() -> None:
    def right_minus_left(value: float) -> np.ndarray:
        out = render(faces(8, **{**PLAIN, "light_x": value}), 64)
        grey = out.image.mean(axis=3)
        return grey[:, 34:44, 40:46].mean(axis=(1, 2)) - grey[:, 34:44, 18:24].mean(axis=(1, 2))

    assert (right_minus_left(2.0) > 10).all() and (right_minus_left(-2.0) < -10).all()


@pytest.mark.parametrize("name", [n for n in FACTORS if not isinstance(SPECS[n], Choice)])
def test_every_continuous_factor_is_visible(name: str) -> None:
    """Each factor changes the image if the other factors make it visible."""
    spec = SPECS[name]
    assert not isinstance(spec, Choice)
    seen = {"eyeglasses": "clear", "beard": "full", "hair_style": "side_part", "background": "bokeh"}
    # A hue is periodic: its two ends look the same, its middle does not.
    far = spec.mean if name.endswith("hue") else spec.high
    low, high = (render(faces(4, **{**seen, name: value}), 64).image.astype(float) for value in (spec.low, far))
    assert (np.abs(high - low).max(axis=(1, 2, 3)) > 8).all()


@pytest.mark.parametrize("name", [n for n in FACTORS if isinstance(SPECS[n], Choice)])
def test_every_choice_is_visible(name: str) -> None:
    spec = SPECS[name]
    assert isinstance(spec, Choice)
    images = [render(faces(2, **{name: k}), 64).image.astype(float) for k in range(len(spec.names))]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert np.abs(a - b).max() > 15


@pytest.mark.parametrize("name", [n for n in FACTORS if not isinstance(SPECS[n], Choice)])
def test_images_are_continuous_in_the_normals(name: str) -> None:
    """A small step of one normal changes the image by little, so that a generator can learn the mapping."""
    n = normals(0, range(6))
    moved = n.copy()
    moved[:, FACTORS.index(name)] += 0.02
    a, b = (render(factors_from_normals(x), 64).image.astype(float) for x in (n, moved))
    assert np.abs(a - b).mean() < 1.5


# --- labels, masks, obstacles ----------------------------------------------------------------------------------------


def test_every_label_occurs_and_mask_agrees_with_it() -> None:
    out = render(faces(64), 64)
    assert set(np.unique(out.label)) == set(range(len(LABELS)))
    mask = out.mask
    for inside in ("hair", "eyes", "brows", "mouth"):
        assert mask[out.label == LABELS.index(inside)].mean() > 0.95, inside
    assert mask[out.label == LABELS.index("clothes")].mean() < 0.05
    assert mask[out.label == 0].mean() < 0.02
    assert 0.2 < mask.mean() < 0.6
    assert (out.obstacle == 0).all()


def test_obstacle_does_not_change_the_face_below() -> None:
    factors = faces(40, seed=1)
    clean, covered = render(factors, 64), render(factors, 64, obstacle_parameters(1, range(40), 1.0))
    untouched = covered.obstacle == 0
    assert np.array_equal(clean.image[untouched], covered.image[untouched])
    assert np.array_equal(clean.label[untouched], covered.label[untouched])
    np.testing.assert_array_equal(clean.mask[untouched], covered.mask[untouched])
    np.testing.assert_allclose(covered.mask, clean.mask * (1 - covered.obstacle), atol=1e-6)
    assert (covered.label[covered.obstacle > 0.51] == 0).all()
    assert (covered.obstacle.mean(axis=(1, 2)) > 0.01).all() and (covered.obstacle.mean(axis=(1, 2)) < 0.55).all()


def test_obstacle_probability() -> None:
    kinds = obstacle_parameters(0, range(2000), 0.3)[:, 0]
    assert abs((kinds >= 0).mean() - 0.3) < 0.04
    assert set(kinds) == {-1.0, 0.0, 1.0, 2.0, 3.0, 4.0}
    assert torch.equal(SynthFaces(32, obstacles=1.0)[4]["factors"], SynthFaces(32)[4]["factors"])


# --- distributions ----------------------------------------------------------------------------------------------------


def test_vector_is_standardised_and_named() -> None:
    vector = factors_from_normals(normals(0, range(5000))).to_vector()
    assert vector.shape == (5000, len(VECTOR_NAMES)) and vector.dtype == np.float32
    for column, name in zip(vector.T, VECTOR_NAMES, strict=True):
        if "=" in name:
            factor, value = name.split("=")
            spec = SPECS[factor]
            assert isinstance(spec, Choice)
            assert abs(column.mean() - spec.probabilities[spec.names.index(value)]) < 0.025
        else:
            assert abs(column.mean()) < 0.06 and 0.85 < column.std() < 1.05, name


def test_factors_are_independent() -> None:
    factors = factors_from_normals(normals(0, range(5000)))
    matrix = np.corrcoef(np.stack([factors[name].astype(float) for name in FACTORS]))
    np.fill_diagonal(matrix, 0)
    assert np.abs(matrix).max() < 0.07  # five standard errors


def test_requested_correlation() -> None:
    data = SynthFaces(32, size=4000, correlations={("age", "eyeglasses"): 0.6, "smile,gender": -0.4})
    n = data.normals(range(4000))
    matrix = np.corrcoef(n.T)
    at = FACTORS.index
    assert abs(matrix[at("age"), at("eyeglasses")] - 0.6) < 0.04
    assert abs(matrix[at("smile"), at("gender")] + 0.4) < 0.05
    factors = data.factors(range(4000))
    assert factors.age[factors.eyeglasses > 0].mean() > factors.age[factors.eyeglasses == 0].mean() + 8
    np.testing.assert_allclose(n.std(axis=0), 1, atol=0.06)


def test_identity_groups_share_the_person_only() -> None:
    factors = SynthFaces(32, identity_groups=3).factors(range(9))
    for name in FACTORS:
        groups = factors[name].astype(float).reshape(3, 3)
        if name in IDENTITY_FACTORS:
            assert (np.ptp(groups, axis=1) == 0).all() and np.ptp(groups[:, 0]) > 0, name
        elif not isinstance(SPECS[name], Choice):
            assert (np.ptp(groups, axis=1) > 0).all(), name
    items = SynthFaces(32, identity_groups=3).__getitems__(range(7))
    assert [item["identity"] for item in items] == [0, 0, 0, 1, 1, 1, 2]
    first, second = sample_identity_pairs(5, 4, 32)
    assert first.shape == second.shape == (4, 3, 32, 32) and not torch.equal(first, second)


def test_sample() -> None:
    item = SynthFaces(64)[3]
    assert item["image"].shape == (3, 64, 64) and item["image"].dtype == torch.float32
    assert item["image"].min() >= -1 and item["image"].max() <= 1 and item["image"].max() > 0
    assert item["mask"].shape == item["obstacle"].shape == (1, 64, 64)
    assert item["label"].shape == (64, 64) and item["label"].dtype == torch.int64
    assert item["normals"].shape == (NUM_NORMALS,) and item["factors"].shape == (len(VECTOR_NAMES),)
    assert NUM_NORMALS <= 56
    assert torch.equal(SynthFaces(64, size=10)[-1]["image"], SynthFaces(64)[9]["image"])


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"resolution": 16}, "resolution=16"),
        ({"resolution": 1024}, "32 to 512"),
        ({"seed": -1}, "seed=-1"),
        ({"size": 0}, "size=0"),
        ({"identity_groups": 0}, "identity_groups=0"),
        ({"obstacles": 1.5}, "obstacles=1.5"),
        ({"overrides": {"hat": 1.0}}, "factor=hat: expected one of face_width"),
        ({"overrides": {"yaw": 90.0}}, "yaw=90"),
        ({"overrides": {"hair_style": "mohawk"}}, "side_part"),
        ({"overrides": {"beard": 9}}, "beard=9"),
        ({"correlations": {("age", "hat"): 0.5}}, "hat"),
        ({"correlations": {("age", "smile"): 1.5}}, "1.5"),
        ({"correlations": {("age", "smile"): 0.9, ("smile", "yaw"): 0.9, ("age", "yaw"): -0.9}}, "impossible"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SynthFaces(**arguments)


def test_index_out_of_range_ends_iteration() -> None:
    with pytest.raises(IndexError):
        SynthFaces(32, size=3)[3]
    with pytest.raises(UserError, match="shape"):
        factors_from_normals(np.zeros((2, 3)))
