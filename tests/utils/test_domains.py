"""Domains: what each part declares, and the line that stops a command whose parts are of different domains."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from torch import nn

import stylegan_inv.losses
import stylegan_inv.metrics
from stylegan_inv import convert
from stylegan_inv.data import (
    AFHQDataModule,
    CachedSynthFacesDataModule,
    CelebAHQDataModule,
    FFHQCelebAHQDataModule,
    FolderDataModule,
    LSUNDataModule,
    PeopleDataModule,
    SynthFacesDataModule,
)
from stylegan_inv.directions import __main__ as directions
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.encoders import FaceNetwork, load_face_network
from stylegan_inv.encoders.face_network import save_face_network
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.evaluate.evaluation_job import consistency_metrics
from stylegan_inv.generators import (
    Discriminator,
    Generator,
    finetuned,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
)
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.directions import load_direction, save_direction
from stylegan_inv.latents.edits import Shift
from stylegan_inv.loading import load_inverter
from stylegan_inv.losses import (
    L2,
    AdversarialLoss,
    EmbeddedFeatures,
    EmbeddedPerceptual,
    IdentityLoss,
    LossTerms,
    StyleMixing,
)
from stylegan_inv.losses.arcface import ArcFace
from stylegan_inv.losses.features import Features
from stylegan_inv.losses.moco import MoCo
from stylegan_inv.methods import Projector
from stylegan_inv.methods.common.domain_parts import domain_parts
from stylegan_inv.metrics import IdentitySimilarity, KernelDistance
from stylegan_inv.metrics.recognition import CurricularFace
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.domains import DOMAINS, check_domain_name, check_domains, domain_of
from stylegan_inv.weights.table import TABLE
from tests.cli import REPOSITORY, error_of
from tests.fake_run import TwoSteps, make_run, write_config
from tests.faults import small


def small_generator(domain: str | None = None) -> Generator:
    generator = Generator(16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    generator.domain = domain
    return generator


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was trained on cars."""
    folder = make_run(tmp_path / "run")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["dataset"]["domain"] = "cars"
    write_config(folder, config)
    return folder


# -- what each part declares ------------------------------------------------------------------------------------------


def public_classes(package) -> list[type]:
    every = (getattr(package, name) for name in package.__all__)
    return [kind for kind in every if inspect.isclass(kind) and issubclass(kind, nn.Module)]


BASES = (LossTerms, stylegan_inv.metrics.PerImageMetric, stylegan_inv.metrics.SetMetric, Features)


@pytest.mark.parametrize("kind", public_classes(stylegan_inv.losses) + public_classes(stylegan_inv.metrics))
def test_every_loss_metric_and_feature_network_declares_its_domain(kind):
    if kind not in BASES:
        assert any("domain" in vars(base) for base in kind.__mro__ if base not in BASES), f"{kind}: declares no domain"


def test_domains_of_losses_and_metrics_are_those_of_their_networks():
    face, arcface, moco = load_face_network("face_train"), ArcFace(nn.Identity()), MoCo(nn.Identity())
    curricular = IdentitySimilarity(CurricularFace(nn.Identity()))
    assert [domain_of(one) for one in (face, arcface, moco)] == ["synthfaces", "faces", None]
    assert [IdentityLoss(one).domain for one in (face, arcface, moco)] == ["synthfaces", "faces", None]
    assert StyleMixing(IdentityLoss(arcface)).domain == "faces" and StyleMixing(L2()).domain is None
    assert EmbeddedPerceptual().domain == EmbeddedFeatures().domain == KernelDistance().domain == "synthfaces"
    assert curricular.domain == "faces" and IdentitySimilarity().domain == "synthfaces"
    discriminator = Discriminator(16, channel_base=64, channel_max=8)
    assert AdversarialLoss(discriminator).domain is None
    discriminator.domain = "wild"
    assert AdversarialLoss(discriminator).domain == "wild"


def test_published_weights_name_their_domain():
    for name, entry in TABLE.items():
        if entry.holds != "network":
            assert entry.domain in DOMAINS, name
    expected = {"psp-celebs-sketch": "faces", "e4e-horse": "horses", "restyle-psp-church": "churches"}
    expected |= {"stylegan2-car-512": "cars", "ir-se50": "faces", "curricularface": "faces", "moco-v2": None}
    assert {name: TABLE[name].domain for name in expected} == expected


def test_data_sets_know_their_domain(tmp_path):
    (tmp_path / "church_outdoor_train_lmdb").mkdir()
    (tmp_path / "cat_lmdb").mkdir()
    lsun = {"church_outdoor": "churches", "cat": "photos"}
    for category, domain in lsun.items():
        assert LSUNDataModule(root=tmp_path, category=category).domain == domain
    assert [kind().domain for kind in (SynthFacesDataModule, CachedSynthFacesDataModule, PeopleDataModule)] == [
        "synthfaces"
    ] * 3
    assert FolderDataModule(root=tmp_path).domain is None
    assert FolderDataModule(root=tmp_path, domain="horses").domain == "horses"
    assert CelebAHQDataModule(root=tmp_path).domain == "faces"
    assert FFHQCelebAHQDataModule(root=tmp_path, celeba_hq_root=tmp_path).domain == "faces"
    assert AFHQDataModule(root=tmp_path).domain == "wild"
    assert AFHQDataModule(root=tmp_path, animals=["wild", "cat"]).domain == "photos"
    with pytest.raises(UserError, match=r"dataset.animals=cat: .* domain photos, got domain=wild; give domain=photos"):
        AFHQDataModule(root=tmp_path, animals=["cat"], domain="wild")
    with pytest.raises(UserError, match=r"dataset.category=cat: .* domain photos, got domain=churches"):
        LSUNDataModule(root=tmp_path, category="cat", domain="churches")
    with pytest.raises(UserError, match=r"dataset.domain=church: expected one of .*; did you mean churches\?"):
        FolderDataModule(root=tmp_path, domain="church")


def test_files_keep_their_domain(tmp_path):
    generator = load_generator("synthfaces64")
    assert generator.domain == load_direction("smile").domain == finetuned("synthfaces64").domain == "synthfaces"
    save_generator(small_generator("cars"), tmp_path / "cars.safetensors")
    save_generator(small_generator(), tmp_path / "unknown.safetensors")
    assert load_generator(tmp_path / "cars.safetensors").domain == "cars"
    assert finetuned(tmp_path / "cars.safetensors").domain == "cars"
    assert load_generator(tmp_path / "unknown.safetensors").domain is None
    assert load_generator(tmp_path / "unknown.safetensors", domain="wild").domain == "wild"
    with pytest.raises(UserError, match=r"generator.domain=car: .* did you mean cars\?"):
        load_generator(tmp_path / "unknown.safetensors", domain="car")
    discriminator = Discriminator(16, channel_base=64, channel_max=8)
    discriminator.domain = "horses"
    save_discriminator(discriminator, tmp_path / "d.safetensors")
    assert load_discriminator(tmp_path / "d.safetensors").domain == "horses"
    network = FaceNetwork(4)
    network.domain = "wild"
    save_face_network(network, tmp_path / "face.safetensors")
    assert load_face_network(tmp_path / "face.safetensors").domain == "wild"
    save_direction(load_direction("smile"), tmp_path / "smile.safetensors")
    assert load_direction(tmp_path / "smile.safetensors").domain == "synthfaces"


def test_a_converted_file_has_the_domain_that_was_given(tmp_path):
    save_generator(small_generator(), tmp_path / "unknown.safetensors")
    for option, domain in (([], None), (["--domain", "wild"], "wild")):
        convert.main([str(tmp_path / "unknown.safetensors"), str(tmp_path / f"{domain}.safetensors"), *option])
        assert load_generator(tmp_path / f"{domain}.safetensors").domain == domain


def test_a_known_hash_tells_the_domain(tmp_path, monkeypatch):
    from dataclasses import replace

    from stylegan_inv.generators.io.weight_files import file_hash

    save_generator(small_generator(), tmp_path / "renamed.safetensors")
    entry = replace(TABLE["stylegan2-ffhq-1024"], sha256=file_hash(tmp_path / "renamed.safetensors"))
    monkeypatch.setitem(TABLE, "stylegan2-ffhq-1024", entry)
    assert load_generator(tmp_path / "renamed.safetensors").domain == "faces"


def test_a_run_has_the_domain_of_its_data(run):
    assert load_inverter(run).domain == "cars"
    assert RunFolder(REPOSITORY / "tests" / "stored_runs" / "restyle").domain() == "synthfaces", "of version 0.1"
    config = {"dataset": {"_target_": "stylegan_inv.data.folders.FolderDataModule"}}
    write_config(run, config)
    assert RunFolder(run).domain() is None
    config["dataset"]["_target_"] = "stylegan_inv.data.celeba_hq.FFHQCelebAHQDataModule"
    write_config(run, config)
    assert RunFolder(run).domain() == "faces"
    write_config(run, {**config, "domain": {"name": "horses"}})
    assert RunFolder(run).domain() == "horses"


# -- the check --------------------------------------------------------------------------------------------------------


def part(domain: str | None) -> SimpleNamespace:
    return SimpleNamespace(domain=domain)


@pytest.mark.parametrize(
    ("domain", "name", "of", "hint"),
    [
        ("cars", "loss.id", "faces", "give domain=cars or similarity=moco perceptual=lpips"),
        ("faces", "loss.id", "synthfaces", "give domain=faces or similarity=arcface perceptual=lpips"),
        ("synthfaces", "loss.perceptual", "faces", "similarity=embedded perceptual=embedded"),
        ("cars", "metrics.id", "faces", "give domain=cars or leave it out (~metrics.id)"),
        ("cars", "features", "synthfaces", "features=lpips"),
        ("cars", "start.features", "synthfaces", "features=lpips"),
        ("cars", "generator", "faces", "generator.domain=cars if it makes such images"),
        ("wild", "run", "cars", "give the run of a method for wild"),
        ("photos", "loss.id", "faces", "give domain=faces if they show faces"),
        ("cars", "direction smile", "synthfaces", "make one for this generator"),
    ],
)
def test_the_first_part_of_another_domain_is_named_with_what_fits(domain, name, of, hint):
    parts = {"any": part(None), "own": part(domain), name: part(of), "later": part(of), "without": object()}
    with pytest.raises(UserError) as error:
        check_domains("the data (dataset=x) are", domain, parts)
    line = str(error.value)
    assert line.startswith(
        f"{name}: SimpleNamespace was made for {of}, the data (dataset=x) are of the domain {domain}; "
    )
    assert hint in line and line.endswith(", or any_domain=true") and "\n" not in line
    check_domains("the data are", domain, parts, any_domain=True)
    check_domains("the data are", None, parts)


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_generator_of_unknown_domain_fits_everywhere_but_in_synthfaces(domain):
    if domain != "synthfaces":
        return check_domains("the data are", domain, {"generator": part(None)})
    with pytest.raises(UserError, match="its domain is unknown.*generator.domain=synthfaces.*any_domain=true"):
        check_domains("the data are", domain, {"generator": part(None)})


def test_names_are_checked():
    assert check_domain_name("domain", None) is None and check_domain_name("domain", "cars") == "cars"
    with pytest.raises(UserError, match=r"domain=Face: expected one of synthfaces, .*; did you mean faces\?"):
        check_domain_name("domain", "Face")


def test_the_parts_of_a_method_have_the_names_of_the_config():
    terms = LossTerms({"id": IdentityLoss(), "l2": L2(), "off": EmbeddedPerceptual()}, {"id": 1, "l2": 1, "off": 0})
    trained = TwoSteps(generator=small_generator(), loss=terms, metrics={"id": IdentitySimilarity()})
    assert list(domain_parts(trained)) == ["generator", "metrics.id", "loss.id", "loss.l2"]
    start = Projector(generator=small_generator(), features=EmbeddedFeatures())
    assert list(domain_parts(start)) == ["generator", "features"]
    outer = Projector(generator=small_generator(), features=EmbeddedFeatures(), start=start)
    assert list(domain_parts(outer)) == ["generator", "features", "start.features"]
    start.domain = "cars"
    assert domain_parts(outer)["start"] is start


# -- the commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ([], "generator: its domain is unknown, the data (SynthFacesDataModule) are of the domain synthfaces; give "
             "generator.domain=synthfaces if it makes such images, or any_domain=true"),
        (["++dataset.domain=cars"], "metrics.id: IdentitySimilarity was made for synthfaces, the data "),
        (["++dataset.domain=cars", "metrics=image"], "loss."),
    ],
)  # fmt: skip
def test_train_stops_before_a_folder_exists(options, line, tmp_path):
    with pytest.raises(UserError) as error:
        small.build("restyle", tmp_path / "run", *options, "any_domain=false")
    assert str(error.value).startswith(line) and "any_domain=true" in str(error.value)
    assert not (tmp_path / "run").exists()


def test_train_of_a_generator_checks_its_metrics(tmp_path):
    with pytest.raises(UserError, match="metrics.frechet_embedded: FrechetDistance was made for synthfaces"):
        small.build("stylegan2", tmp_path / "run", "++dataset.domain=cars", "any_domain=false")


OF_RUN = "run: TwoSteps was made for cars, the"
ID_METRIC = "+metrics.id={{_target_:stylegan_inv.metrics.IdentitySimilarity}}"
PHOTO = "input={run}/a.png"
OF_FILE = "generator=file generator.source={run}/generator.safetensors"
ON_CARS = "generator.domain=cars edit=direction edit.direction={run}/cars.safetensors"


@pytest.mark.parametrize(
    ("module", "options", "line"),
    [
        (
            evaluate,
            "run={run} resolution=64 dataset=synthfaces",
            f"{OF_RUN} data (dataset=synthfaces) are of the domain synthfaces",
        ),
        (
            evaluate,
            f"run={{run}} resolution=64 dataset=synthfaces ++dataset.domain=cars metrics=evaluation_basic {ID_METRIC}",
            "metrics.id: IdentitySimilarity was made for synthfaces, the data (dataset=synthfaces) are of the domain",
        ),
        (invert, "run={run} input=synthfaces:0", f"{OF_RUN} input (synthfaces:0) is of the domain synthfaces"),
        (
            invert,
            "method=projector generator.domain=cars input=synthfaces:0",
            "generator: Generator was made for cars, ",
        ),
        (
            invert,
            f"method=projector generator.domain=cars {PHOTO}",
            "features: EmbeddedFeatures was made for synthfaces",
        ),
        (
            invert,
            f"method=projector {OF_FILE} {PHOTO}",
            "generator: its domain is unknown, the features are of the domain synthfaces; give generator.domain=synth",
        ),
        (
            invert,
            f"method=projector {OF_FILE} generator.domain=synthfaces start={{run}} {PHOTO}",
            "start: TwoSteps was made for cars, the generator is of the domain synthfaces",
        ),
        (edit, "run={run} input=synthfaces:0", f"{OF_RUN} input (synthfaces:0) is of the domain synthfaces"),
        (
            edit,
            "generator.domain=cars",
            "direction smile: Direction was made for synthfaces, the generator is of the d",
        ),
        (edit, f"{ON_CARS} edit.also={{{{smile:1}}}}", "direction smile: Direction was made for synthfaces"),
        (edit, f"{ON_CARS} edit.grid={{{{age:[0]}}}}", "direction age: Direction was made for synthfaces"),
        (edit, f"run={{run}} edit.any_generator=true {PHOTO}", "direction smile: Direction was made for synthfaces"),
    ],
)
def test_commands_stop_with_one_line(module, options, line, run, monkeypatch, capsys):
    from dataclasses import replace

    from PIL import Image

    Image.new("RGB", (20, 20)).save(run / "a.png")
    save_direction(replace(load_direction("age"), domain="cars"), run / "cars.safetensors")
    monkeypatch.chdir(run)
    before = sorted(run.rglob("*"))
    got = error_of(monkeypatch, capsys, module, *options.format(run=run).split())
    assert line in got and "any_domain=true" in got
    assert sorted(run.rglob("*")) == before, "nothing was written"


def test_pairs_of_images_have_no_domain_unless_one_is_given(run, monkeypatch, capsys):
    from PIL import Image

    for folder in ("images", "targets"):
        (run / folder).mkdir()
        for name in "ab":
            Image.new("RGB", (64, 64), (200, 90, 10)).save(run / folder / f"{name}.png")
    options = ("images=images", "targets=targets", "metrics=evaluation_basic", ID_METRIC.format())
    monkeypatch.chdir(run)
    got = error_of(monkeypatch, capsys, evaluate, *options, "domain=cars")
    assert "metrics.id: IdentitySimilarity was made for synthfaces, the images are of the domain cars" in got
    monkeypatch.setattr("sys.argv", ["evaluate", *options])
    evaluate.main()
    assert "id" in json.dumps(json.loads(Path("images_evaluation/metrics.json").read_text()))


def test_directions_of_editing_consistency_belong_to_the_generator():
    method = TwoSteps(generator=small_generator("cars"))
    with pytest.raises(UserError, match="direction smile: Direction was made for synthfaces, the generator is of the"):
        consistency_metrics(method, ["smile"], 3.0, 16)
    with pytest.raises(UserError, match="got codes of shape"):  # the next check
        consistency_metrics(method, ["smile"], 3.0, 16, any_domain=True)


@pytest.mark.parametrize("scores", ["factors", "face_train"])
def test_factors_and_face_networks_score_synthfaces_only(scores, tmp_path, capsys):
    save_generator(
        Generator(16, z_dim=128, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8), tmp_path / "g.safetensors"
    )
    options = ["interfacegan", "--attribute", "age", "--scores", scores, "--output", str(tmp_path / "a.safetensors")]
    options += ["--samples", "60", "--generator", str(tmp_path / "g.safetensors")]
    for more, got in (([], "its domain is unknown"), (["--domain", "cars"], "Generator was made for cars")):
        with pytest.raises(SystemExit) as stop:
            directions.main([*options, *more])
        assert stop.value.code == 2
        line = capsys.readouterr().err.strip()
        assert line.startswith(
            f"error: generator: {got}, the scores ({scores}) are of the domain synthfaces; give --domain"
        )
        assert line.endswith("or --any-domain") and not (tmp_path / "a.safetensors").exists()
    directions.main([*options, "--fraction", "0.3", "--domain", "synthfaces"])
    assert load_direction(tmp_path / "a.safetensors").domain == "synthfaces"


def test_a_shift_names_all_its_directions():
    shift = Shift("smile", also={"age": 1.0}, grid={"pose": [0, 1]})
    assert [direction.name for direction in shift.directions] == ["smile", "age", "pose"]
