"""conf/loss: every file composes and names existing classes and arguments."""

from __future__ import annotations

import inspect
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config import CONF_DIR, build_loss_terms, instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs

SIMILARITIES = sorted(path.stem for path in (CONF_DIR / "similarity").glob("*.yaml"))
PERCEPTUALS = sorted(path.stem for path in (CONF_DIR / "perceptual").glob("*.yaml"))
PAPER = ("dataset=ffhq", "dataset.root=x")
TERMS = sorted(path.stem for path in (CONF_DIR / "loss" / "term").glob("*.yaml"))


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose("train", overrides=list(overrides))


def check_arguments(node: dict[str, Any]) -> None:
    """Checks that every argument exists and that none without a default is missing."""
    arguments = {key: value for key, value in node.items() if key not in ("_target_", "weight")}
    inspect.signature(get_object(node["_target_"])).bind(**arguments)
    for value in arguments.values():
        if isinstance(value, dict):
            check_arguments(value)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("perceptual", PERCEPTUALS)
def test_every_network(similarity: str, perceptual: str) -> None:
    terms = OmegaConf.to_container(composed(f"similarity={similarity}", f"perceptual={perceptual}").loss, resolve=True)
    assert isinstance(terms, dict) and "l2" in terms and len(terms) == (3 if similarity == "none" else 4)
    for node in terms.values():
        check_arguments(node)


@pytest.mark.parametrize("term", TERMS)
def test_every_term_can_be_added(term: str) -> None:
    given = (*PAPER, f"+loss/term={term}", "loss.id.path=arcface.pth", "loss.lpips.trunk=alex.pth")
    before = set(composed(*PAPER).loss) - {term}  # l2 and w_norm are in all losses
    loss = composed(*given[: 2 if term in ("l2", "w_norm") else 5]).loss
    assert set(loss) > before
    nodes: Any = OmegaConf.to_container(loss, resolve=True)
    for name in set(loss) - before:
        check_arguments(nodes[name])


def test_embedded_terms_run() -> None:
    cfg = composed("+loss/term=[masked_id,mixing,delta]", "~loss.w_norm")
    torch.manual_seed(0)
    w = torch.randn(2, 10, 8)
    image, target = torch.rand(2, 2, 3, 64, 64)
    total, values = instantiate(cfg.method.loss)(
        LossInputs(
            image=image,
            target=target,
            w=w,
            mask=torch.ones(2, 1, 64, 64),
            synthesis=lambda w: image * w.mean(),
        )
    )
    assert set(values) == {"l2", "perceptual", "id", "masked_id", "mixing", "delta"} and total.isfinite()
    torch.testing.assert_close(values["masked_id"], values["id"])  # the mask covers the whole image
    weights = {name: node.weight for name, node in cfg.loss.items()}
    torch.testing.assert_close(total, sum(weights[name] * value for name, value in values.items()))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache, downloads forbidden, and every connection an error."""

    def touched(*args: object, **kwargs: object) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket.socket, "connect", touched)
    monkeypatch.setattr(socket, "getaddrinfo", touched)
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STYLEGAN_INV_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    return tmp_path


@pytest.mark.parametrize(
    ("domain", "term", "cached"),
    [
        ("faces", "id", "model_ir_se50.pth"),
        ("faces", "lpips", "alexnet-owt-7be5be79.pth"),
        ("cars", "moco", "moco_v2_800ep_pretrain.pth.tar"),
    ],
)
def test_offline_error_names_the_path_of_the_file(domain: str, term: str, cached: str, no_network: Path) -> None:
    node = OmegaConf.to_container(composed(f"domain={domain}").loss[term], resolve=True)
    assert isinstance(node, dict)
    with pytest.raises(UserError) as info:
        build_loss_terms({term: node})
    target = no_network / "cache" / "weights" / cached
    for text in (f"loss.{term}: ", f"downloads are switched off: put the file at {target} (from https://"):
        assert text in str(info.value)


@pytest.mark.parametrize("backbone", ["ir_se50", "resnet34"])
def test_offline_error_of_encoders(backbone: str, no_network: Path) -> None:
    name = {"ir_se50": "ir-se50"}.get(backbone, backbone)
    cfg = composed("encoder=single_level", f"encoder/backbone={backbone}", f"encoder.backbone.pretrained={name}")
    with pytest.raises(UserError, match=f"{name} is not in the cache and downloads are switched off: put the file at"):
        instantiate(cfg.method)


def test_a_term_of_weight_zero_needs_no_file(no_network: Path) -> None:
    nodes: Any = OmegaConf.to_container(composed(*PAPER, "loss.id.weight=0", "loss.lpips.weight=0").loss, resolve=True)
    assert set(build_loss_terms(nodes).terms) == {"l2"}
    nodes["l2"]["weight"] = 0
    with pytest.raises(UserError, match="loss: got no term with a weight"):
        build_loss_terms(nodes)


def test_missing_value_is_named_with_its_key() -> None:
    node = {"_target_": "stylegan_inv.losses.StyleMixing", "weight": 1, "term": {"_target_": "x", "path": "???"}}
    with pytest.raises(UserError, match=r"loss\.mixing\.term\.path was not given; give loss\.mixing\.term\.path=…"):
        build_loss_terms({"mixing": node})


@pytest.mark.parametrize(
    ("domain", "term", "file"),
    [
        ("faces", "id", r"model_ir_se50\.pth of TreB1eN/InsightFace_Pytorch"),
        ("cars", "moco", r"moco_v2_800ep_pretrain\.pth\.tar of facebookresearch/moco"),
    ],
)
def test_error_for_absent_weights_names_their_source(domain: str, term: str, file: str, tmp_path: Path) -> None:
    node = OmegaConf.to_container(composed(f"domain={domain}").loss[term], resolve=True)
    assert isinstance(node, dict)
    with pytest.raises(UserError, match=rf"loss\.{term}: no file given; expected .*{file}.* ir-se50,"):
        build_loss_terms({term: {**node, "path": None}})
    with pytest.raises(UserError, match=f"no file .*/absent.pth; expected .*{file}"):
        build_loss_terms({term: {**node, "path": str(tmp_path / "absent.pth")}})
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>quota exceeded</html>")
    with pytest.raises(UserError, match=r"page\.pth is a web page"):
        build_loss_terms({term: {**node, "path": str(tmp_path / "page.pth")}})
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth lacks .*; expected .*{file}"):
        build_loss_terms({term: {**node, "path": str(tmp_path / "other.pth")}})
