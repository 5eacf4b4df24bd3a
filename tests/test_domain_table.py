"""What every method gets with every data set: networks, sizes and schedule, as its paper has them in that domain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR, explained, instantiate_method
from stylegan_inv.errors import UserError
from stylegan_inv.utils.domains import DOMAINS

#: Data set -> its domain, and what else the user gives.
DATASETS: dict[str, tuple[str, list[str]]] = {
    "synthfaces": ("synthfaces", []),
    "synthfaces_cached": ("synthfaces", []),
    "synthfaces_paired": ("synthfaces", []),
    "ffhq": ("faces", ["dataset.root=ffhq"]),
    "celeba_hq": ("faces", ["dataset.root=celeba_hq"]),
    "ffhq_celeba_hq": ("faces", ["dataset.root=ffhq", "dataset.celeba_hq_root=celeba_hq"]),
    "cars": ("cars", ["dataset.root=cars"]),
    "afhq": ("wild", ["dataset.root=afhq"]),
    "lsun": ("churches", ["dataset.root=lsun"]),
    "folder": ("photos", ["dataset.root=photos", "generator.source=mine.pkl"]),
    "paired": ("photos", ["dataset.root=photos", "dataset.source_root=sources", "generator.source=mine.pkl"]),
}
#: Domain -> generator, its similarity term, its similarity metric, its perceptual term and metric, side length.
DOMAIN_ROWS: dict[str, tuple[str, str, str | None, str, str, int]] = {
    "synthfaces": ("synthfaces64", "IdentityLoss", "face_eval", "EmbeddedPerceptual", "EmbeddedPerceptualDistance", 64),
    "faces": ("stylegan2-ffhq-config-f", "ArcFaceLoss", "curricularface", "LPIPS", "LPIPSDistance", 256),
    "cars": ("stylegan2-car-512", "MoCoLoss", None, "LPIPS", "LPIPSDistance", 256),
    "wild": ("stylegan2-afhq-wild-512", "MoCoLoss", None, "LPIPS", "LPIPSDistance", 256),
    "churches": ("stylegan2-church-256", "MoCoLoss", None, "LPIPS", "LPIPSDistance", 256),
    "horses": ("stylegan2-horse-256", "MoCoLoss", None, "LPIPS", "LPIPSDistance", 256),
    "photos": ("mine.pkl", "MoCoLoss", None, "LPIPS", "LPIPSDistance", 256),
}
#: Method -> encoder of its paper, and whether it gives one w and offsets.
ENCODERS = {
    "psp": ("FPNEncoder", False),
    "e4e": ("FPNEncoder", True),
    "restyle": ("SingleLevelEncoder", False),
    "restyle_e4e": ("SingleLevelEncoder", True),
    "interestyle": ("SingleLevelEncoder", False),
    "interestyle_released": ("SingleLevelEncoder", False),
    "interestyle_dual": ("SingleLevelEncoder", False),
}
#: Methods whose encoder finds codes and a feature map.
FEATURE_SPACE = ("fse", "sfe")
#: Method that predicts weights -> hypernetwork of the embedded world and of the paper, optimiser of the paper.
HYPERNETWORKS = {
    "hyperstyle": ("SmallHypernetwork", "SharedWeightsHypernetwork", "Ranger"),
    "hyperinverter": ("WeightRegressors", "WeightRegressors", "Adam"),
}
#: Domain -> the published encoder into W that HyperStyle starts from.
W_ENCODERS = {"synthfaces": "e4e_synthfaces", "faces": "hyperstyle-ffhq-w", "cars": "hyperstyle-cars-w"}
#: Domain -> the published embedder that HFGI, SAM and DHR start from.
EMBEDDERS = {
    **{"synthfaces": "e4e_synthfaces", "faces": "e4e-ffhq", "cars": "e4e-cars"},
    **{"churches": "e4e-church", "horses": "e4e-horse"},
}
#: Method that optimises each image -> features of its paper beyond the embedded world.
FEATURES = {
    "projector": ("LpipsFeatures", {"net": "vgg", "size": 256}),
    "image2stylegan": ("Vgg16Features", {"layers": ["conv1_1", "conv1_2", "conv3_2", "conv4_2"]}),
    "image2stylegan_pp": ("Vgg16Features", {"layers": ["conv1_1", "conv1_2", "conv2_2", "conv3_3"]}),
    "pti": ("LpipsFeatures", {"net": "alex", "size": None}),
    "dhr": ("LpipsFeatures", {"net": "alex", "size": None}),
    "sam": ("LpipsFeatures", {"net": "vgg", "size": 256}),
}
#: Steps of 8 images: (method, domain), with the method alone for the domains that the table does not name.
STEPS = {
    "psp": 300_000, "e4e": 300_000,
    "restyle": 110_000, "restyle_e4e": 110_000, "interestyle": 110_000, "interestyle_released": 110_000,
    "interestyle_dual": 110_000,
}  # fmt: skip
STEPS_OF_DOMAIN = {"synthfaces": 400, "cars": 200_000, "churches": 200_000, "horses": 200_000, "wild": 40_000}


def composed(name: str, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose(name, overrides=["paths.run_dir=run", *overrides] if name == "train" else list(overrides))
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)
    return resolved  # type: ignore[return-value]


def kind(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def steps(method: str, domain: str) -> int:
    if (method, domain) == ("restyle", "churches"):
        return 150_000
    return STEPS[method] if domain == "faces" else STEPS_OF_DOMAIN.get(domain, 200_000)


def check_domain(cfg: dict[str, Any], domain: str) -> None:
    source, similarity, network, perceptual, distance, size = DOMAIN_ROWS[domain]
    assert cfg["domain"]["name"] == cfg["dataset"]["domain"] == domain
    assert cfg["generator"]["source"] == source and cfg["dataset"]["resolution"] == size
    metrics = {kind(node): node for node in cfg["metrics"].values()}
    assert metrics.keys() - {"IdentitySimilarity"} == {"PSNR", "SSIM", distance}
    measured = metrics.get("IdentitySimilarity", {}).get("network")
    assert (measured["path"] if isinstance(measured, dict) else measured) == network
    assert {kind(node) for node in cfg["loss"].values()} - {"DeltaNorm"} == {"L2", similarity, perceptual, "WNorm"}


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", ENCODERS)
def test_encoder_methods(method: str, dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed("train", f"method={method}", f"dataset={dataset}", *given)
    check_domain(cfg, domain)
    encoder, (paper, progressive) = cfg["method"]["encoder"], ENCODERS[method]
    assert encoder["progressive"] is progressive
    embedded = domain == "synthfaces"
    if embedded:
        assert kind(encoder) == "SmallEncoder" and encoder["pretrained"] == "face_train"
    else:
        face_backbone = paper == "FPNEncoder" or domain == "faces"
        assert kind(encoder) == paper and encoder["resolution"] == 256
        expected = ("ir_se", "ir-se50") if face_backbone else ("resnet34", "resnet34")
        assert (kind(encoder["backbone"]), encoder["backbone"]["pretrained"]) == expected
    terms = cfg["method"]["loss"]["terms"]
    assert {terms["l2"]["weight"], terms.get("moco", {"weight": 0.5})["weight"]} == {1.0, 0.5}
    region = "interest" if method in ("interestyle", "interestyle_released") else "whole"
    assert {node["region"] for node in terms.values() if "region" in node} == {region}
    assert cfg["method"]["training_noise"] == ("const" if embedded else "random")
    assert kind(cfg["method"]["optimizer"]) == ("Adam" if embedded else "Ranger")
    assert kind(cfg["method"]["scheduler"]) == ("warmup_cosine" if embedded else "ConstantLR")
    assert cfg["trainer"]["max_steps"] == steps(method, domain)
    if method in ("e4e", "restyle_e4e"):
        stages = cfg["method"]["stages"]
        assert (stages["start"], stages["every"]) == ((80, 15) if embedded else (20_000, 2_000))


@pytest.mark.parametrize("dataset", ["synthfaces", "folder"])
@pytest.mark.parametrize("method", FEATURE_SPACE)
def test_methods_that_find_feature_maps(method: str, dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed("train", f"method={method}", f"dataset={dataset}", *given)
    embedded = domain == "synthfaces"
    assert kind(cfg["method"]["encoder"]) == ("SmallFeatureStyleEncoder" if embedded else "FeatureStyleEncoder")


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", HYPERNETWORKS)
def test_methods_that_predict_weights(method: str, dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed("train", f"method={method}", f"dataset={dataset}", *given)
    check_domain(cfg, domain)
    embedded, (small, paper, optimizer) = domain == "synthfaces", HYPERNETWORKS[method]
    assert kind(cfg["method"]["hypernetwork"]) == (small if embedded else paper)
    assert kind(cfg["method"]["optimizer"]) == ("Adam" if embedded else optimizer)
    assert cfg["method"]["optimizer"]["lr"] == (1e-3 if embedded else 1e-4)
    if method == "hyperinverter":
        assert kind(cfg["method"]["encoder"]) == ("SmallLayerwiseEncoder" if embedded else "LayerwiseEncoder")
        assert cfg["method"]["hypernetwork"]["hidden"] == (16 if embedded else 128)
    if domain in W_ENCODERS and (method == "hyperstyle" or domain != "cars"):
        assert cfg["method"]["start"] == W_ENCODERS[domain]
    assert domain != "faces" or cfg["trainer"]["max_steps"] == {"hyperstyle": 120_000}.get(method, 500_000)


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("method", FEATURES)
def test_methods_that_optimise_each_image(method: str, dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed("train", f"method={method}", f"dataset={dataset}", *given)
    check_domain(cfg, domain)
    inverted = composed(
        "invert", "input=images", f"method={method}", f"domain={domain}", *given[-1:] * ("mine" in str(given))
    )
    assert inverted["method"] == {**cfg["method"], "metrics": inverted["metrics"]}, "train and invert differ"
    features, (paper, arguments) = cfg["method"]["features"], FEATURES[method]
    embedded = domain == "synthfaces"
    assert kind(features) == ("EmbeddedFeatures" if embedded else paper)
    assert embedded or features.items() >= arguments.items()
    if method == "pti":
        assert cfg["method"]["distance_threshold"] == (0.003 if embedded else 0.06)
    if method == "image2stylegan":
        assert cfg["method"]["steps"] == (300 if embedded else 5000)
    if method in ("dhr", "sam"):
        assert cfg["method"]["start"] == EMBEDDERS.get(domain, "average")
    if method == "dhr":
        coarse = cfg["method"]["coarse"]["features"]
        assert kind(coarse) == kind(features) and coarse.get("net") == (None if embedded else "vgg")
        assert cfg["method"]["layer"] == ("b16" if embedded else "b128")


@pytest.mark.parametrize("dataset", DATASETS)
def test_hfgi(dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed("train", "method=hfgi", f"dataset={dataset}", *given)
    check_domain(cfg, domain)
    embedded = domain == "synthfaces"
    assert cfg["method"]["start"] == EMBEDDERS.get(domain, "average")
    assert cfg["method"]["layer"] == ("b32.conv0" if embedded else "b64.conv0")
    assert kind(cfg["method"]["optimizer"]) == ("Adam" if embedded else "Ranger")


@pytest.mark.parametrize("dataset", DATASETS)
def test_training_of_generators(dataset: str) -> None:
    domain, given = DATASETS[dataset]
    cfg = composed(
        "train", "method=stylegan2", f"dataset={dataset}", *(text for text in given if "generator" not in text)
    )
    sizes = {key: cfg["generator"][key] for key in ("resolution", "z_dim", "w_dim", "mapping_layers", "channel_base")}
    embedded = domain == "synthfaces"
    expected = (64, 128, 128, 4, 2048) if embedded else (256, 512, 512, 8, 16384)
    assert tuple(sizes.values()) == expected
    names = {kind(node) for node in cfg["metrics"].values()}
    assert names == ({"FrechetDistance", "PrecisionRecall"} if embedded else {"FID", "KID"})
    assert cfg["optimized_metric"] == ("val/frechet_embedded" if embedded else "val/fid")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_folder_of_any_domain(domain: str) -> None:
    given = ["generator.source=mine.pkl"] if domain == "photos" else []
    cfg = composed("train", "dataset=folder", "dataset.root=images", f"domain={domain}", *given)
    check_domain(cfg, domain)


@pytest.mark.parametrize("domain", DOMAINS)
def test_metrics_of_the_evaluation(domain: str) -> None:
    names = {kind(node) for node in composed("evaluate", f"domain={domain}")["metrics"].values()}
    embedded = {"IdentitySimilarity", "EmbeddedPerceptualDistance", "FrechetDistance", "KernelDistance"}
    more = {"synthfaces": embedded, "faces": {"IdentitySimilarity", "LPIPSDistance"}}.get(domain, {"LPIPSDistance"})
    assert names == {"MSE", "PSNR", "SSIM", "MSSSIM", "DistanceToW", "CodeSpread", "StyleSpaceDistance"} | more


def test_lsun_has_one_category_for_each_domain() -> None:
    expected = {"churches": "church_outdoor", "horses": "horse", "cars": "car"}
    for domain, category in expected.items():
        cfg = composed("train", "dataset=lsun", "dataset.root=lsun", f"domain={domain}")
        assert cfg["dataset"]["category"] == category
        check_domain(cfg, domain)


def test_choices_of_the_user_win() -> None:
    cfg = composed("train", "dataset=ffhq", "dataset.root=x", "similarity=none", "encoder=small", "optimizer=adam")
    assert set(cfg["loss"]) == {"l2", "lpips", "w_norm"} and kind(cfg["encoder"]) == "SmallEncoder"
    assert kind(cfg["optimizer"]) == "Adam" and cfg["encoder"]["pretrained"] is None
    cfg = composed(
        "train", "dataset=cars", "dataset.root=x", "method=e4e", "encoder/backbone=resnet34", "trainer.max_steps=5"
    )
    assert kind(cfg["encoder"]["backbone"]) == "resnet34" and cfg["trainer"]["max_steps"] == 5


def test_every_data_set_and_domain_is_in_the_table() -> None:
    files = {path.stem for path in (CONF_DIR / "dataset").glob("*.yaml")}
    assert files - set(DATASETS) == {"people"}, "for method=face_network only"
    assert {path.stem for path in (CONF_DIR / "domain").glob("*.yaml")} == set(DOMAINS) == set(DOMAIN_ROWS)
    trained = {path.stem for path in (CONF_DIR / "method").glob("*.yaml")} - set(ENCODERS) - set(FEATURES)
    trained -= set(HYPERNETWORKS)
    assert trained == {"stylegan2", "face_network", "hfgi", *FEATURE_SPACE}, "hfgi has the embedder of the domain"
    for path in (CONF_DIR / "setup").glob("*/*.yaml"):
        assert path.parent.name in DOMAINS and (CONF_DIR / "method" / path.name).is_file(), path
    assert Path(CONF_DIR / "setup").is_dir()


def test_an_unknown_domain_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(HydraException) as info:
        composed("train", "domain=fcaes")
    line = str(explained(info.value, "train", ["domain=fcaes"]))
    assert line.startswith("domain=fcaes: expected one of cars, churches, faces, horses, photos, synthfaces, wild; ")
    assert line.endswith("did you mean domain=faces?")


def test_an_option_that_a_chosen_encoder_lacks_is_named() -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=["method=e4e", "encoder=single_w", "encoder/backbone=ir_se_tiny"])
        with pytest.raises(UserError, match="SingleWEncoder has no option progressive; a method, an encoder"):
            instantiate_method(cfg.method)


@pytest.mark.parametrize("method", ["psp", "restyle", "interestyle_dual"])
def test_an_encoder_of_feature_maps_is_refused_by_a_method_of_codes(method: str) -> None:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=[f"method={method}", "encoder=small_feature_style"])
        with pytest.raises(UserError, match="SmallFeatureStyleEncoder needs feature_channels and feature_size, which"):
            instantiate_method(cfg.method)
