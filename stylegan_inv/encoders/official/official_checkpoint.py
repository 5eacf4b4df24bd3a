"""The checkpoints of the papers' official code: an encoder, its generator and the latent average in one file.

=====================================  ================================================================================
``kind``                               file
=====================================  ================================================================================
``psp``                                pSp, e4e, ReStyle (over either), IntereStyle, HyperStyle's W encoders:
                                       ``{state_dict: encoder.*, decoder.*; latent_avg; opts; ...}``
``hyperstyle``, ``hfgi``               additionally ``hypernet.*``, or ``residue.*`` and ``grid_align.*``
``sfe``                                StyleFeatureEditor: ``encoder.*`` (inverter or editor), ``inverter.*``, ...
``fse``                                the Feature-Style encoder alone, or ``{enc_state_dict}``
``hyperinverter``                      ``{state_dict: hypernet.*, w_encoder.*, w_bar_encoder.*, discriminator.*; opts}``
``ganinverter``                        caopulan/GANInverter: ``{encoder, decoder, opts, ...}``
``ir-se50``, ``curricularface``        face recognition networks, for pretraining, losses and metrics
``moco``                               MoCo v2's ResNet-50
``encoder``, ``generator``             a single network
=====================================  ================================================================================

The kind is inferred from names and shapes. Options (``opts``) are plain data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.encoders.backbone import Backbone
from stylegan_inv.encoders.official.architecture import infer_encoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.building import CHECKPOINT_KIND, build_generator
from stylegan_inv.generators.io.config_schema import parse_metadata
from stylegan_inv.generators.io.layouts import State, describe, detect_layout, shown, stored_average
from stylegan_inv.generators.io.nvidia_pickle import StoredNetwork
from stylegan_inv.generators.io.pickle_machine import RefusedPickle
from stylegan_inv.generators.io.pickle_objects import EXPANSION, plain
from stylegan_inv.generators.io.weight_files import misfits, plain_names, read_weights, with_counters

_PROGRESSIVE = {"Encoder4Editing", "ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder"}
#: Name on the command line -> ``encoder_type`` in the options of a file that does not have it.
ENCODER_TYPES = {"psp": "GradualStyleEncoder", "e4e": "Encoder4Editing"}
_NOT_PROGRESSIVE = {
    "GradualStyleEncoder",
    "BackboneEncoder",
    "ResNetBackboneEncoder",
    "ResNetGradualStyleEncoder",
}


@dataclass
class OfficialCheckpoint:
    """The content of a checkpoint of the papers' official code.

    Attributes:
        kind: Kind of the checkpoint, see above.
        encoder: State dict of the encoder, or of the network if the file contains a single one. MoCo's keys keep their
            prefix.
        decoder: State dict of the generator, in the layout of the file.
        latent_avg: Latent average, ``(D,)``, ``(1, D)`` or ``(L, D)``; None if the codes are not relative to it.
        opts: Training options.
        discriminator: State dict of e4e's latent discriminator.
        others: State dicts of further networks: ``hypernet``, ``w_bar_encoder``, ``residue``, ``inverter``, ….
        metadata: Metadata of the project's own files.
    """

    kind: str
    encoder: State = field(default_factory=dict)
    decoder: State = field(default_factory=dict)
    latent_avg: Tensor | None = None
    opts: dict[str, Any] = field(default_factory=dict)
    discriminator: State = field(default_factory=dict)
    others: dict[str, State] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def networks(self) -> dict[str, State]:
        """Returns the state dicts of all networks in the checkpoint, by name."""
        found = {"encoder": self.encoder, "decoder": self.decoder, "discriminator": self.discriminator, **self.others}
        return {name: state for name, state in found.items() if state}


def read_checkpoint(path: str | Path) -> OfficialCheckpoint:
    """Reads an official checkpoint, or the project's conversion of one, without executing anything in it.

    Raises:
        UserError: No such file, a damaged one, or one of another kind.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected a checkpoint of pSp, e4e, ReStyle, ...")
    content, metadata = read_weights(path)
    if "generator_hash" in content:  # in every checkpoint of `stylegan_inv.train`
        raise UserError(
            f"{path}: is a checkpoint of a training run, which needs the run's config.yaml; give the run folder, or "
            "this file in its folder checkpoints"
        )
    try:
        return recognise(content, metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def recognise(content: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> OfficialCheckpoint:
    """Returns the checkpoint in the content of a file.

    Args:
        content: Content of the file, from :func:`.read_weights`.
        metadata: Metadata of the file, likewise.

    Raises:
        UserError: A checkpoint of another kind.
    """
    metadata = dict(metadata or {})
    try:
        opts = plain(content.get("opts"))
    except RefusedPickle as error:
        raise UserError(str(error)) from error
    common: dict[str, Any] = {"opts": opts if isinstance(opts, dict) else {}, "metadata": metadata}
    common["latent_avg"] = stored_average(content)
    if metadata.get("kind") == CHECKPOINT_KIND:
        return _read_own(content, metadata)
    inner = content.get("state_dict", content.get("enc_state_dict"))
    wrapped = _tensors(inner if isinstance(inner, Mapping) else content)
    flat = plain_names(wrapped)
    groups = _groups(flat)
    while len(groups) == 1 and not groups.keys() & (_PARTS | {""}):  # of larger modules, such as `model.net.encoder.x`
        groups = _groups(next(iter(groups.values())))
    if {"encoder", "decoder", "w_bar_encoder"} & groups.keys() and groups.keys() <= _PARTS:
        # Some codes make the latent average a buffer of the network.
        buffer = groups.pop("latent_avg", {}).get("")
        common["latent_avg"] = buffer if common["latent_avg"] is None else common["latent_avg"]
        kind = "hyperstyle" if "hypernet" in groups else "hfgi" if "residue" in groups else "psp"
        kind = "sfe" if "inverter" in groups or "fs_backbone.conv.0.weight" in groups.get("encoder", {}) else kind
        kind = "fse" if _FSE <= groups.get("encoder", {}).keys() else kind
        kind = "hyperinverter" if "w_bar_encoder" in groups else kind
        encoder, decoder = groups.pop("encoder", {}), groups.pop("decoder", {})
        discriminator = plain_names(_tensors(content.get("discriminator_state_dict")))
        return OfficialCheckpoint(kind, encoder, decoder, discriminator=discriminator, others=groups, **common)
    if isinstance(content.get("encoder"), Mapping):
        encoder, decoder = (plain_names(_tensors(content.get(name))) for name in ("encoder", "decoder"))
        discriminator = plain_names(_tensors(content.get("discriminator_state_dict", content.get("discriminator"))))
        return OfficialCheckpoint("ganinverter", encoder, decoder, discriminator=discriminator, **common)
    if "encoder_q.conv1.weight" in flat:
        return OfficialCheckpoint("moco", wrapped, **common)
    if _FSE <= flat.keys():
        return OfficialCheckpoint("fse", flat, **common)
    if "input_layer.0.weight" in flat or "relu.weight" in flat:
        return OfficialCheckpoint(_single_kind(flat), flat, **common)
    if any(isinstance(content.get(name), (Mapping, StoredNetwork)) for name in ("g_ema", "G_ema", "g", "G")):
        return OfficialCheckpoint("generator", **common)
    if (layout := detect_layout(flat)) and layout.endswith(" generator"):
        flat.pop("latent_avg", None)
        return OfficialCheckpoint("generator", decoder=flat, **common)
    raise UserError(
        f"contains {describe(layout, flat or content)}, expected a checkpoint of pSp, e4e, ReStyle, IntereStyle, "
        f"HyperStyle or GANInverter, a generator, IR-SE50, CurricularFace or MoCo"
    )


_PARTS = {
    "encoder",
    "decoder",
    "hypernet",
    "residue",
    "grid_align",
    "w_encoder",
    "w_bar_encoder",
    "discriminator",
    "latent_avg",
}
_PARTS |= {"inverter", "e4e_encoder"}  # of StyleFeatureEditor
#: Tensors that the Feature-Style encoder alone has.
_FSE = {"conv.0.weight", "content_layer.1.weight", "block_4.0.conv1.weight"}


def _tensors(value: Any) -> State:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): item for key, item in items if isinstance(item, Tensor)}


def _groups(flat: Mapping[str, Tensor]) -> dict[str, State]:
    """Converts ``encoder.x`` to ``{"encoder": {"x": ...}}``."""
    groups: dict[str, State] = {}
    for key, value in flat.items():
        name, _, rest = key.partition(".")
        groups.setdefault(name, {})[rest] = value
    return groups


def _single_kind(flat: State) -> str:
    geometry = infer_encoder(flat)
    if geometry.head != "none":
        return "encoder"
    known = {(True, 24): "ir-se50", (False, 49): "curricularface"}
    return known.get((geometry.se, sum(geometry.units)), "face recognition")


def build_encoder(
    checkpoint: OfficialCheckpoint, *, progressive: bool | None = None, num_ws: int | None = None
) -> Backbone:
    """Builds the encoder of a checkpoint, in evaluation mode.

    Args:
        checkpoint: The checkpoint, from `read_checkpoint`.
        progressive: e4e's rule (`map2style.StyleEncoder`); None infers it from the encoder's name in the options.
        num_ws: Number L of styles, for the encoder of a single w; None infers it from the generator or the latent
            average.

    Raises:
        UserError: No encoder, missing or unexpected keys, or an encoder that the file does not determine.
    """
    if not checkpoint.encoder:
        raise UserError(f"contains no encoder, but {', '.join(checkpoint.networks()) or checkpoint.kind}")
    geometry = infer_encoder(checkpoint.encoder)
    if geometry.head == "none":
        raise UserError(f"contains a face recognition network ({checkpoint.kind}), expected an encoder of latent codes")
    count = geometry.num_ws or num_ws or _num_ws(checkpoint)
    if count is None:
        raise UserError(
            "contains an encoder of a single w, and nothing tells the number of styles: set num_ws of build_encoder, "
            "or give the checkpoint with its generator"
        )
    if geometry.may_be_progressive and progressive is None:
        progressive = _is_progressive(checkpoint.opts)
    with torch.device("meta"):  # a file may claim sizes that it does not have
        encoder = geometry.build(count, bool(progressive))
    expected = encoder.state_dict()
    if problems := misfits(expected, checkpoint.encoder):
        raise UserError(f"does not fit {type(encoder).__name__} ({geometry.backbone}): {problems}")
    copies = {key: value.clone().contiguous() for key, value in with_counters(expected, checkpoint.encoder).items()}
    encoder.load_state_dict(copies, assign=True)
    return encoder.eval()


def checkpoint_generator(checkpoint: OfficialCheckpoint) -> tuple[Generator, bool]:
    """Builds the generator of a checkpoint.

    Returns:
        The generator, frozen, and whether its latent average is an estimate.

    Raises:
        UserError: The checkpoint contains no StyleGAN2 generator.
    """
    content: dict[str, Any] = {"decoder": checkpoint.decoder}
    if checkpoint.latent_avg is not None:
        content["latent_avg"] = checkpoint.latent_avg
    generator, estimated = build_generator(content, checkpoint.metadata)
    return generator.freeze(), estimated


def _read_own(content: Mapping[str, Any], metadata: dict[str, str]) -> OfficialCheckpoint:
    try:
        aliases, opts = (parse_metadata(metadata.get(name, "{}"), name) for name in ("aliases", "opts"))
        copies = {key: content[original] for key, original in aliases.items()}
    except (KeyError, TypeError) as error:
        raise UserError(f"its metadata is damaged ({error})") from error
    if sum(value.nbytes for value in copies.values()) > EXPANSION * sum(value.nbytes for value in content.values()):
        raise UserError(f"its aliases are more than {EXPANSION} times as large as its tensors")
    tensors = {**content, **copies}
    average = stored_average(tensors)
    tensors.pop("latent_avg", None)
    groups = _groups(_tensors(tensors))
    encoder, decoder, discriminator = (groups.pop(name, {}) for name in ("encoder", "decoder", "discriminator"))
    kind = metadata.get("checkpoint", "psp")
    return OfficialCheckpoint(kind, encoder, decoder, average, opts, discriminator, groups, metadata)


def _is_progressive(opts: Mapping[str, Any]) -> bool:
    name = opts.get("encoder_type")
    if isinstance(name, str) and name in _PROGRESSIVE | _NOT_PROGRESSIVE:
        return name in _PROGRESSIVE
    raise UserError(
        f"may contain pSp's or e4e's encoder, which have the same weights (encoder_type is {shown(str(name))}); write "
        f"it into a new file: python -m stylegan_inv.convert FILE FILE.safetensors --encoder-type e4e (or psp)"
    )


def _num_ws(checkpoint: OfficialCheckpoint) -> int | None:
    blocks = {key.split(".")[1] for key in checkpoint.decoder if key.startswith(("to_rgbs.", "synthesis.b"))}
    if blocks:
        return 2 * (len(blocks) + (not any(block.startswith("b") for block in blocks)))
    if checkpoint.latent_avg is not None and checkpoint.latent_avg.ndim == 2 and len(checkpoint.latent_avg) > 1:
        return len(checkpoint.latent_avg)
    size = checkpoint.opts.get("output_size") or checkpoint.opts.get("stylegan_size")
    if not isinstance(size, int) or not 4 < size <= 8192 or size & (size - 1):
        return None
    return 2 * size.bit_length() - 4
