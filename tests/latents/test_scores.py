"""Scores of codes, effects of directions, and the command that finds directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stylegan_inv.data.synthfaces.factor_specs import SPECS
from stylegan_inv.directions.__main__ import main
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator
from stylegan_inv.latents.directions import embedded_directions, load_direction
from stylegan_inv.latents.discovery.effect import EffectMeter
from stylegan_inv.latents.discovery.scores import (
    attributes_of,
    csv_scores,
    factor_scores,
    predict_attributes,
    render,
    with_factor,
)
from stylegan_inv.latents.statistics import map_codes, sample_z


@pytest.fixture(scope="module")
def generator():
    return load_generator("synthfaces64")


def test_attributes_of_factors():
    names = ["age", "eyeglasses=none", "eyeglasses=clear", "yaw", "hair_style=bald", "hair_style=bob"]
    values = torch.tensor([[1.0, 0.2, 0.8, -2.0, 0.3, 0.7]])
    found = {name: float(value) for name, value in attributes_of(values, names).items()}
    assert found == pytest.approx(
        {"age": 1, "eyeglasses": 0.8, "pose": -2, "hair_style=bald": 0.3, "hair_style=bob": 0.7}
    )


def test_factors_of_z_are_those_of_its_image(generator):
    z = sample_z(generator, 60, seed=3)
    truth, read = (
        factor_scores(z),
        predict_attributes(load_face_network("face_eval"), render(generator, map_codes(generator, z))),
    )
    for name, least in (("age", 0.5), ("pose", 0.9), ("eyeglasses", 0.8), ("skin_tone", 0.8)):
        correlation = float(torch.corrcoef(torch.stack([truth[name], read[name]]))[0, 1])
        assert correlation > least, f"{name}: {correlation:.2f}"


def test_with_factor_changes_one_factor(generator):
    z = sample_z(generator, 50)
    before, after = factor_scores(z), factor_scores(with_factor(z, "age", 0.85))
    want = (0.85 - 0.5) * (SPECS["age"].high - SPECS["age"].low) / SPECS["age"].std
    torch.testing.assert_close(after["age"], torch.full((50,), want), atol=1e-4, rtol=1e-4)
    for name, value in before.items():
        if name != "age":
            torch.testing.assert_close(after[name], value, atol=2e-3, rtol=1e-3)
    with pytest.raises(UserError, match="attribute=wisdom: expected one of .*factors of SynthFaces"):
        with_factor(z, "wisdom", 0.5)


def test_scores_from_a_file(tmp_path):
    (tmp_path / "s.csv").write_text("name,age\nb.png,2\na.png,1\n")
    assert csv_scores(tmp_path / "s.csv", "age").tolist() == [2, 1]
    assert csv_scores(tmp_path / "s.csv", "age", ["a.png", "b.png"]).tolist() == [1, 2]
    (tmp_path / "n.csv").write_text("name,age\n\u00e9.png,3\n", encoding="utf-8")
    assert csv_scores(tmp_path / "n.csv", "age", ["e\u0301.png"]).tolist() == [3], "é as macOS writes it"
    (tmp_path / "latin.csv").write_bytes(b"name,age\n\xe9.png,3\n")
    with pytest.raises(UserError, match="in UTF-8"):
        csv_scores(tmp_path / "latin.csv", "age")
    for attribute, names, message in (("smile", None, "no column 'smile'"), ("age", ["c.png"], "no row for c.png")):
        with pytest.raises(UserError, match=message):
            csv_scores(tmp_path / "s.csv", attribute, names)
    (tmp_path / "s.csv").write_text("age\nold\n")
    with pytest.raises(UserError, match="not a number"):
        csv_scores(tmp_path / "s.csv", "age")
    with pytest.raises(UserError, match="no such file"):
        csv_scores(tmp_path / "none.csv", "age")


def test_embedded_directions_change_their_attribute_and_hardly_the_others(generator):
    """The claim of the card on 60 of its 500 faces: three times the change of any other attribute."""
    z = sample_z(generator, 60, seed=11)
    meter = EffectMeter(generator, {"face_eval": load_face_network("face_eval")}, map_codes(generator, z))
    alternating, remove_present = torch.ones(60), 1 - 2 * factor_scores(z)["eyeglasses"]
    alternating[::2] = -1
    for name in embedded_directions():
        glasses = name == "eyeglasses"
        direction = load_direction(name, generator)
        strength, sign = (2.0, remove_present) if glasses else (1.0, alternating)
        effect = meter.measure(direction, strength, sign)["face_eval"]
        others = max(abs(effect.mean[other]) for other in embedded_directions() if other != name)
        assert effect.mean[name] >= 3 * others > 0, (name, effect.mean)
        assert effect.identity > 0.95


def test_effect_is_the_mean_change_in_standard_deviations(generator):
    network, w = load_face_network("face_eval"), map_codes(generator, sample_z(generator, 8))
    direction = load_direction("pose", generator)
    ws = w[:, None].expand(-1, 10, -1)
    effect, wide = (EffectMeter(generator, {"x": network}, codes).measure(direction, -1.5)["x"] for codes in (w, ws))
    assert effect == wide
    before, after = (
        network.read_out(generator.synthesis(codes).clamp(-1, 1)) for codes in (ws, direction.apply(ws, -1.5))
    )
    column = network.factor_names.index("yaw")
    change = (after - before)[:, column] / before[:, column].std()
    assert effect.mean["pose"] == pytest.approx(float(change.mean()), rel=1e-4)
    assert effect.absolute["pose"] == pytest.approx(float(change.abs().mean()), rel=1e-4)


def test_command_finds_a_direction_from_factors(tmp_path, generator, capsys):
    arguments = ["--attribute", "pose", "--scores", "factors", "--samples", "2000", "--fraction", "0.1"]
    for command in ("interfacegan", "means"):
        file = tmp_path / f"{command}.safetensors"
        main([command, *arguments, "--against", "smile", "--output", str(file)])
        found, shipped = load_direction(file, generator), load_direction("pose")
        assert abs(float(found.vector @ load_direction("smile").vector)) < 1e-5
        assert float(found.vector @ shipped.vector) > 0.95
    assert "accuracy=1.0000" in capsys.readouterr().out
    main(["show", str(tmp_path / "interfacegan.safetensors")])
    assert "scores      factors" in capsys.readouterr().out


def test_command_accepts_scores_of_inverted_images(tmp_path, generator):
    from safetensors.torch import save_file

    z = sample_z(generator, 400)
    names = [f"{k}.png" for k in range(400)]
    w = generator.mapping(z).contiguous()
    listed = str(names).replace("'", '"')
    images = listed.replace('["', '["reconstructions/').replace(', "', ', "reconstructions/')
    save_file({"w": w}, tmp_path / "latents.safetensors", {"names": listed, "reconstructions": images})
    rows = [f"{name},{score}" for name, score in zip(names, factor_scores(z)["age"].tolist(), strict=True)]
    (tmp_path / "ages.csv").write_text("\n".join(["name,age", *np.random.default_rng(0).permutation(rows)]))
    file = tmp_path / "age.safetensors"
    options = ["--scores", str(tmp_path / "ages.csv"), "--codes", str(tmp_path), "--fraction", "0.2"]
    main(["means", "--attribute", "age", *options, "--output", str(file)])
    assert float(load_direction(file, generator).vector @ load_direction("age").vector) > 0.7


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["means", "--attribute", "wit", "--scores", "factors"], "--attribute wit: expected one of"),
        (["means", "--attribute", "age", "--scores", "nobody"], "no such file or embedded network"),
        (["interfacegan", "--attribute", "age", "--scores", "factors", "--fraction", "0.001"], "0.001 of 100 codes"),
        (["sefa", "--layers", "huge"], "layers=huge"),
        (["ganspace", "--count", "500"], "count=500"),
        (["sefa", "--generator", "nothing"], "nothing"),
    ],
)
def test_bad_options_print_one_error_line(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--samples", "100", "--output", str(tmp_path / "x.safetensors")])
    line = capsys.readouterr().err.strip()
    assert line.startswith("error: ") and message in line and "\n" not in line
    assert not list(tmp_path.iterdir())
