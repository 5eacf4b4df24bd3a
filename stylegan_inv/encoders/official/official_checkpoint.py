"""The papers' checkpoints: an encoder, its generator and the average code in one file.

=====================================  ================================================================================
``kind``                               file
=====================================  ================================================================================
``psp``                                pSp, e4e, ReStyle (over either), IntereStyle, HyperStyle's W encoders:
                                       ``{state_dict: encoder.*, decoder.*; latent_avg; opts; ...}``
``hyperstyle``, ``hfgi``               the same with ``hypernet.*``, or ``residue.*`` and ``grid_align.*``
``ganinverter``                        caopulan/GANInverter: ``{encoder, decoder, opts, ...}``
``ir-se50``, ``curricularface``        face recognition networks: what encoders start from, losses and metrics
``moco``                               MoCo v2's ResNet-50
``encoder``, ``generator``             one of the two alone
=====================================  ================================================================================

The kind follows from names and shapes. Options (``opts``) are plain data and only hints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_inv.encoders.backbone import Backbone
from stylegan_inv.encoders.official.architecture import infer_encoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.io.formats import CHECKPOINT_KIND, build_generator
from stylegan_inv.generators.io.layouts import State, describe, detect_layout, to_rosinality
from stylegan_inv.generators.io.network_export import prefixed
from stylegan_inv.generators.io.nvidia_pickle import StoredNetwork
from stylegan_inv.generators.io.pickle_objects import plain
from stylegan_inv.generators.io.weight_files import misfits, read_weights

_PROGRESSIVE = {"Encoder4Editing", "ProgressiveBackboneEncoder", "ResNetProgressiveBackboneEncoder"}
_NOT_PROGRESSIVE = {
    "GradualStyleEncoder",
    "BackboneEncoder",
    "ResNetBackboneEncoder",
    "ResNetGradualStyleEncoder",
}


@dataclass
class OfficialCheckpoint:
    """What a file of the papers' code holds, as data.

    Attributes:
        kind: See the table above.
        encoder: State dict of the encoder, or of the network where the file holds a single one (MoCo's keys keep their
            prefix).
        decoder: State dict of the generator, in the layout of the file.
        latent_avg: Average code, (D,), (1, D) or (L, D); None if codes are not relative to it.
        opts: Training options, plain.
        discriminator: State dict of e4e's latent discriminator.
        others: Further networks: ``hypernet``, ``residue``, ``grid_align``.
        metadata: Of our own files.
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
        """Name -> state dict of all that is there."""
        found = {"encoder": self.encoder, "decoder": self.decoder, "discriminator": self.discriminator, **self.others}
        return {name: state for name, state in found.items() if state}


def read_checkpoint(path: str | Path) -> OfficialCheckpoint:
    """Read a file of the papers' code, or our own conversion of one; nothing in it is executed.

    Raises:
        UserError: No such file, a broken one, or one that is none of these.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a file of pSp, e4e, ReStyle, ...")
    content, metadata = read_weights(path)
    try:
        return recognise(content, metadata)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def recognise(content: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> OfficialCheckpoint:
    """`read_checkpoint` on the content of a file, see :func:`.read_weights`.

    Raises:
        UserError: None of these.
    """
    metadata = dict(metadata or {})
    opts = plain(content.get("opts") or {})
    common: dict[str, Any] = {"opts": opts if isinstance(opts, dict) else {}, "metadata": metadata}
    average = content.get("latent_avg")
    common["latent_avg"] = average if isinstance(average, Tensor) else None
    if metadata.get("kind") == CHECKPOINT_KIND:
        return _ours(content, metadata)
    inner = content.get("state_dict")
    flat = _tensors(inner if isinstance(inner, Mapping) else content)
    groups = _groups(flat)
    if {"encoder", "decoder"} & groups.keys() and groups.keys() <= _PARTS:
        kind = "hyperstyle" if "hypernet" in groups else "hfgi" if "residue" in groups else "psp"
        encoder, decoder = groups.pop("encoder", {}), groups.pop("decoder", {})
        discriminator = _tensors(content.get("discriminator_state_dict"))
        return OfficialCheckpoint(kind, encoder, decoder, discriminator=discriminator, others=groups, **common)
    if isinstance(content.get("encoder"), Mapping):
        encoder, decoder = (_without_wrapper(_tensors(content.get(name))) for name in ("encoder", "decoder"))
        discriminator = _tensors(content.get("discriminator_state_dict") or content.get("discriminator"))
        return OfficialCheckpoint("ganinverter", encoder, decoder, discriminator=discriminator, **common)
    if "module.encoder_q.conv1.weight" in flat:
        return OfficialCheckpoint("moco", flat, **common)
    flat = _without_wrapper(flat)
    if "input_layer.0.weight" in flat or "relu.weight" in flat:
        return OfficialCheckpoint(_single_kind(flat), flat, **common)
    if any(isinstance(content.get(name), (Mapping, StoredNetwork)) for name in ("g_ema", "G_ema", "g", "G")):
        return OfficialCheckpoint("generator", **common)
    if (layout := detect_layout(flat)) and layout.endswith(" generator"):
        flat.pop("latent_avg", None)
        return OfficialCheckpoint("generator", decoder=flat, **common)
    raise UserError(
        f"holds {describe(layout, flat or content)}, expected a checkpoint of pSp, e4e, ReStyle, IntereStyle, "
        f"HyperStyle or GANInverter, a generator, IR-SE50, CurricularFace or MoCo"
    )


_PARTS = {"encoder", "decoder", "hypernet", "residue", "grid_align", "w_encoder", "discriminator", "latent_avg"}


def _tensors(value: Any) -> State:
    items = value.items() if isinstance(value, Mapping) else ()
    return {str(key): item for key, item in items if isinstance(item, Tensor)}


def _groups(flat: Mapping[str, Tensor]) -> dict[str, State]:
    """``encoder.x`` -> ``{"encoder": {"x": ...}}``."""
    groups: dict[str, State] = {}
    for key, value in flat.items():
        name, _, rest = key.partition(".")
        groups.setdefault(name, {})[rest] = value
    return groups


def _without_wrapper(state: State) -> State:
    """Without the ``module.`` of DataParallel."""
    wrapped = bool(state) and all(key.startswith("module.") for key in state)
    return {key.removeprefix("module."): value for key, value in state.items()} if wrapped else state


def _single_kind(flat: State) -> str:
    geometry = infer_encoder(flat)
    if geometry.head != "none":
        return "encoder"
    known = {(True, 24): "ir-se50", (False, 49): "curricularface"}
    return known.get((geometry.se, sum(geometry.units)), "face recognition")


def build_encoder(
    checkpoint: OfficialCheckpoint, *, progressive: bool | None = None, num_ws: int | None = None
) -> Backbone:
    """The encoder of a checkpoint with its weights, in evaluation mode.

    Args:
        checkpoint: From `read_checkpoint`.
        progressive: e4e's rule (`map2style.StyleEncoder`); None takes it from the encoder's name in the options.
        num_ws: Styles, for the encoder of a single w; None takes them from the generator or the average beside it.

    Raises:
        UserError: No encoder, missing or surplus keys, or something that the file does not tell.
    """
    if not checkpoint.encoder:
        raise UserError(f"holds no encoder, but {', '.join(checkpoint.networks()) or 'nothing'}")
    geometry = infer_encoder(checkpoint.encoder)
    if geometry.head == "none":
        raise UserError(f"holds a face recognition network ({checkpoint.kind}), expected an encoder of codes")
    count = geometry.num_ws or num_ws or _num_ws(checkpoint)
    if count is None:
        raise UserError("has an encoder of a single w and nothing that tells the number of styles: give num_ws")
    if geometry.may_be_progressive and progressive is None:
        progressive = _is_progressive(checkpoint.opts)
    encoder = geometry.build(count, bool(progressive))
    if problems := misfits(encoder.state_dict(), checkpoint.encoder):
        raise UserError(f"does not fit {type(encoder).__name__} ({geometry.backbone}): {problems}")
    encoder.load_state_dict(checkpoint.encoder, strict=False)  # batch norm's counters may be missing
    return encoder.eval()


def checkpoint_generator(checkpoint: OfficialCheckpoint) -> tuple[Generator, bool]:
    """The generator of a checkpoint, frozen, and whether its average code is an estimate.

    Raises:
        UserError: No StyleGAN2 generator.
    """
    content: dict[str, Any] = {"decoder": checkpoint.decoder}
    if checkpoint.latent_avg is not None:
        content["latent_avg"] = checkpoint.latent_avg
    generator, estimated = build_generator(content, checkpoint.metadata)
    return generator.freeze(), estimated


def _is_progressive(opts: Mapping[str, Any]) -> bool:
    name = opts.get("encoder_type")
    if name in _PROGRESSIVE or name in _NOT_PROGRESSIVE:
        return name in _PROGRESSIVE
    raise UserError(
        f"does not tell pSp's encoder from e4e's, which have the same weights (encoder_type is {name!r}): "
        f"give progressive=true for e4e, false for pSp"
    )


def _num_ws(checkpoint: OfficialCheckpoint) -> int | None:
    blocks = {key.split(".")[1] for key in checkpoint.decoder if key.startswith(("to_rgbs.", "synthesis.b"))}
    if blocks:
        return 2 * (len(blocks) + (not any(block.startswith("b") for block in blocks)))
    if checkpoint.latent_avg is not None and checkpoint.latent_avg.ndim == 2 and len(checkpoint.latent_avg) > 1:
        return len(checkpoint.latent_avg)
    size = checkpoint.opts.get("output_size") or checkpoint.opts.get("stylegan_size")
    return 2 * size.bit_length() - 4 if isinstance(size, int) and size > 4 and size & (size - 1) == 0 else None


# ---------------------------------------------------------------------------------------------------------------------
# Writing


def to_psp(checkpoint: OfficialCheckpoint) -> dict[str, Any]:
    """The envelope of pSp's code, for `torch.save`."""
    state: State = {}
    for name, part in checkpoint.networks().items():
        if name == "decoder" and detect_layout(part) == "nvidia generator":
            part = to_rosinality(part)
        if name != "discriminator":
            state |= prefixed(name, part)
    content: dict[str, Any] = {"state_dict": state, "opts": checkpoint.opts}
    if checkpoint.latent_avg is not None:
        content["latent_avg"] = checkpoint.latent_avg
    if checkpoint.discriminator:
        content["discriminator_state_dict"] = checkpoint.discriminator
    return content


def save_checkpoint(checkpoint: OfficialCheckpoint, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Write our own file: safetensors with everything of the checkpoint, each network's keys behind its name.

    A network by itself keeps its keys, so that whatever reads the original reads this file too. Tensors that the
    original holds twice (HyperStyle's shared layers) are written once.

    Raises:
        UserError: The decoder is no StyleGAN2 generator.
    """
    from safetensors.torch import save_file

    if checkpoint.networks().keys() == {"encoder"} and checkpoint.latent_avg is None:
        flat = {key: value.contiguous().clone() for key, value in checkpoint.encoder.items()}
        save_file(flat, str(path), metadata={"format": "pt", "kind": checkpoint.kind, **metadata})
        return
    generator: Generator | None = None
    tensors: State = {}
    for name, part in checkpoint.networks().items():
        if name == "decoder":
            generator, _ = checkpoint_generator(checkpoint)
            part = {key: value for key, value in generator.state_dict().items() if key != "mapping.w_avg"}
            if checkpoint.latent_avg is None:
                part["mapping.w_avg"] = generator.w_avg
        tensors |= prefixed(name, part)
    if checkpoint.latent_avg is not None:
        tensors["latent_avg"] = checkpoint.latent_avg
    unique, aliases = _without_twins(tensors)
    info = {
        "format": "pt",
        "kind": CHECKPOINT_KIND,
        "checkpoint": checkpoint.kind,
        "opts": json.dumps(checkpoint.opts),
        "aliases": json.dumps(aliases),
        **metadata,
    }
    if generator is not None:
        info["generator"] = json.dumps(generator.config)
    save_file(unique, str(path), metadata=info)


def _without_twins(tensors: State) -> tuple[State, dict[str, str]]:
    """The tensors, each storage copied once, and the names of those that are others again."""
    first: dict[Any, str] = {}
    unique: State = {}
    aliases: dict[str, str] = {}
    for key, value in tensors.items():
        place = (value.data_ptr(), value.dtype, tuple(value.shape), value.stride())
        if value.numel() and place in first:
            aliases[key] = first[place]
        else:
            first[place] = key
            unique[key] = value.detach().cpu().contiguous().clone()
    return unique, aliases


def _ours(content: Mapping[str, Any], metadata: dict[str, str]) -> OfficialCheckpoint:
    try:
        aliases, opts = json.loads(metadata.get("aliases", "{}")), json.loads(metadata.get("opts", "{}"))
        tensors = {**content, **{key: content[twin] for key, twin in aliases.items()}}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"its metadata is damaged ({error})") from error
    average = tensors.pop("latent_avg", None)
    groups = _groups(_tensors(tensors))
    encoder, decoder, discriminator = (groups.pop(name, {}) for name in ("encoder", "decoder", "discriminator"))
    kind = metadata.get("checkpoint", "psp")
    opts = opts if isinstance(opts, dict) else {}
    return OfficialCheckpoint(kind, encoder, decoder, average, opts, discriminator, groups, metadata)
