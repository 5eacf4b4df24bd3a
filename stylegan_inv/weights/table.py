"""The weights that others published: addresses, licences and checksums.

``sha256`` may be the first digits of the hash, as in torchvision's file names. It is None if no hash is published. The
file is then checked by its size, if known, and by its keys and shapes when it is loaded. Its hash is printed and noted
beside it, and a later call compares the file with that, see `verification`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Weights:
    """A file of weights.

    Attributes:
        file: Name of the file in the cache.
        urls: Addresses, tried in this order.
        licence: Licence of the weights, if their authors state one.
        source: Repository that published the weights.
        holds: ``generator``, ``encoder`` (with its generator) or ``network`` (for losses and metrics).
        size: Size in bytes.
        sha256: Hash, 64 hexadecimal digits or the first 8 or more.
        domain: Domain of the images that it was trained on, one of `utils.domains.DOMAINS`; None for networks that fit
            every domain.
    """

    file: str
    urls: tuple[str, ...]
    licence: str
    source: str
    holds: str
    size: int | None = None
    sha256: str | None = None
    domain: str | None = None


def _drive(identifier: str) -> str:
    # This address skips the page that warns of files too large for a virus scan.
    return f"https://drive.usercontent.google.com/download?id={identifier}&export=download&confirm=t"


_NVIDIA = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained"
_NVIDIA_LICENCE = "NVIDIA Source Code License (non-commercial)"
_ADA = "NVlabs/stylegan2-ada-pytorch"
_PSP = "eladrich/pixel2style2pixel"
_E4E = "omertov/encoder4editing"
_RESTYLE = "yuval-alaluf/restyle-encoder"
_HYPERSTYLE = "yuval-alaluf/hyperstyle"
_HYPERINVERTER = "VinAIResearch/HyperInverter"
_FSE, _SFE = "InterDigitalInc/FeatureStyleEncoder", "ControlGenAI/StyleFeatureEditor"
_MIT = "MIT (code); contains a generator of NVIDIA (non-commercial)"

_NVIDIA_PART = "; works with or contains a generator of NVIDIA (non-commercial)"
#: Repository -> licence of its files.
_OTHERS = {
    _HYPERINVERTER: "Apache-2.0 (code)" + _NVIDIA_PART,
    "Tengfei-Wang/HFGI": "none stated by the authors" + _NVIDIA_PART,
    _FSE: "that of the repository (LICENSE.txt, InterDigital)" + _NVIDIA_PART,
    _SFE: "that of the repository (LICENSE)" + _NVIDIA_PART,
}


def _encoder(file: str, drive: str, source: str, domain: str) -> Weights:
    return Weights(file, (_drive(drive),), _MIT, source, "encoder", domain=domain)


def _beyond(file: str, drive: str, source: str) -> Weights:
    # Of methods beyond W+, for faces.
    return Weights(file, (_drive(drive),), _OTHERS[source], source, "encoder", domain="faces")


def _torchvision(file: str) -> Weights:
    urls, hashed = (f"https://download.pytorch.org/models/{file}",), file.removesuffix(".pth").rsplit("-", 1)[1]
    return Weights(file, urls, "BSD-3-Clause (torchvision)", "pytorch/vision", "network", sha256=hashed)


TABLE: dict[str, Weights] = {
    # Generators
    "stylegan2-ffhq-1024": Weights(
        "stylegan2-ffhq-1024.pkl",
        (f"{_NVIDIA}/ffhq.pkl",),
        _NVIDIA_LICENCE,
        _ADA,
        "generator",
        381_624_121,
        "a205a346e86a9ddaae702e118097d014b7b8bd719491396a162cca438f2f524c",
        "faces",
    ),
    "stylegan2-ffhq-512": Weights(
        "stylegan2-ffhq-512.pkl",
        (f"{_NVIDIA}/transfer-learning-source-nets/ffhq-res512-mirror-stylegan2-noaug.pkl",),
        _NVIDIA_LICENCE,
        _ADA,
        "generator",
        domain="faces",
    ),
    "stylegan2-ffhq-256": Weights(
        "stylegan2-ffhq-256.pkl",
        (f"{_NVIDIA}/transfer-learning-source-nets/ffhq-res256-mirror-paper256-noaug.pkl",),
        _NVIDIA_LICENCE,
        _ADA,
        "generator",
        domain="faces",
    ),
    # The generator of pSp, e4e, ReStyle and HyperStyle (config F, converted by rosinality's script)
    "stylegan2-ffhq-config-f": Weights(
        "stylegan2-ffhq-config-f.pt",
        (_drive("1EM87UquaoQmk17Q8d5kYIAHqu0dkYqdT"),),
        _NVIDIA_LICENCE,
        f"NVlabs/stylegan2, converted; linked by {_PSP}",
        "generator",
        domain="faces",
    ),
    "stylegan2-car-512": Weights(
        "stylegan2-car-512.pt",
        (_drive("1UmMHHB3DU1trTB8_9Fjkck5ZwArnD81B"),),
        _NVIDIA_LICENCE,
        f"NVlabs/stylegan2, converted; linked by {_RESTYLE}",
        "generator",
        domain="cars",
    ),
    "stylegan2-church-256": Weights(
        "stylegan2-church-256.pt",
        (_drive("1ZSZOFtw5wZfPhWEzHFB9LI__bikaHsn6"),),
        _NVIDIA_LICENCE,
        f"NVlabs/stylegan2, converted; linked by {_RESTYLE}",
        "generator",
        domain="churches",
    ),
    "stylegan2-horse-256": Weights(
        "stylegan2-horse-256.pkl",
        ("https://nvlabs-fi-cdn.nvidia.com/stylegan2/networks/stylegan2-horse-config-f.pkl",),
        _NVIDIA_LICENCE,
        "NVlabs/stylegan2",
        "generator",
        domain="horses",
    ),
    "stylegan2-afhq-wild-512": Weights(
        "stylegan2-afhq-wild-512.pkl",
        (f"{_NVIDIA}/afhqwild.pkl",),
        _NVIDIA_LICENCE,
        _ADA,
        "generator",
        domain="wild",
    ),
    # Encoders with their generators
    "psp-ffhq": _encoder("psp_ffhq_encode.pt", "1bMTNWkh5LArlaWSc_wa8VKyq2V42T2z0", _PSP, "faces"),
    "psp-ffhq-frontalization": _encoder(
        "psp_ffhq_frontalization.pt", "1_S4THAzXb-97DbpXmanjHtXRyKxqjARv", _PSP, "faces"
    ),
    "psp-celebs-sketch": _encoder("psp_celebs_sketch_to_face.pt", "1lB7wk7MwtdxL-LL4Z_T76DuCfk00aSXA", _PSP, "faces"),
    "psp-celebs-segmentation": _encoder(
        "psp_celebs_seg_to_face.pt", "1VpEKc6E6yG3xhYuZ0cq8D2_1CbT0Dstz", _PSP, "faces"
    ),
    "psp-celebs-superresolution": _encoder(
        "psp_celebs_super_resolution.pt", "1ZpmSXBpJ9pFEov6-jjQstAlfYbkebECu", _PSP, "faces"
    ),
    "e4e-ffhq": _encoder("e4e_ffhq_encode.pt", "1cUv_reLE6k3604or78EranS7XzuVMWeO", _E4E, "faces"),
    "e4e-cars": _encoder("e4e_cars_encode.pt", "17faPqBce2m1AQeLCLHUVXaDfxMRU2QcV", _E4E, "cars"),
    "e4e-horse": _encoder("e4e_horse_encode.pt", "1TkLLnuX86B_BMo2ocYD0kX9kWh53rUVX", _E4E, "horses"),
    "e4e-church": _encoder("e4e_church_encode.pt", "1-L0ZdnQLwtdy6-A_Ccgq5uNJGTqE7qBa", _E4E, "churches"),
    "restyle-psp-ffhq": _encoder("restyle_psp_ffhq_encode.pt", "1sw6I2lRIB0MpuJkpc8F5BJiSZrc0hjfE", _RESTYLE, "faces"),
    "restyle-psp-cars": _encoder("restyle_psp_cars_encode.pt", "1zJHqHRQ8NOnVohVVCGbeYMMr6PDhRpPR", _RESTYLE, "cars"),
    "restyle-psp-church": _encoder(
        "restyle_psp_church_encode.pt", "1bcxx7mw-1z7dzbJI_z7oGpWG1oQAvMaD", _RESTYLE, "churches"
    ),
    "restyle-e4e-ffhq": _encoder("restyle_e4e_ffhq_encode.pt", "1e2oXVeBPXMQoUoC_4TNwAWpOPpSEhE_e", _RESTYLE, "faces"),
    "restyle-e4e-cars": _encoder("restyle_e4e_cars_encode.pt", "1v6Yi-Yne6JX0Pyas6XPS83IzKKUvCe8r", _RESTYLE, "cars"),
    "restyle-e4e-church": _encoder(
        "restyle_e4e_church_encode.pt", "1sCRzbM1fGTgTbWO87jP_rxApw-tS0CH_", _RESTYLE, "churches"
    ),
    "restyle-e4e-horse": _encoder(
        "restyle_e4e_horse_encode.pt", "19_sUpTYtJmhSAolKLm3VgI-ptYqd-hgY", _RESTYLE, "horses"
    ),
    # Hypernetworks with their generators, and the encoders into W that they start from
    "hyperstyle-ffhq": _encoder("hyperstyle_ffhq.pt", "1C3dEIIH1y8w1-zQMCyx7rDF0ndswSXh4", _HYPERSTYLE, "faces"),
    "hyperstyle-cars": _encoder("hyperstyle_cars.pt", "1WZ7iNv5ENmxXFn6dzPeue1jQGNp6Nr9d", _HYPERSTYLE, "cars"),
    "hyperstyle-afhq-wild": _encoder(
        "hyperstyle_afhq_wild.pt", "1OMAKYRp3T6wzGr0s3887rQK-5XHlJ2gp", _HYPERSTYLE, "wild"
    ),
    "hyperstyle-ffhq-w": _encoder("faces_w_encoder.pt", "1M-hsL3W_cJKs77xM1mwq2e9-J0_m7rHP", _HYPERSTYLE, "faces"),
    "hyperstyle-cars-w": _encoder("cars_w_encoder.pt", "1GZke8pfXMSZM9mfT-AbP1Csyddf5fas7", _HYPERSTYLE, "cars"),
    "hyperstyle-afhq-wild-w": _encoder(
        "afhq_wild_w_encoder.pt", "1MhEHGgkTpnTanIwuHYv46i6MJeet2Nlr", _HYPERSTYLE, "wild"
    ),
    "hyperinverter-ffhq": _beyond("hyperinverter_ffhq.pt", "15PV54F5q-5fotw156ZxO04mxvg-nfq3k", _HYPERINVERTER),
    "hyperinverter-ffhq-large": _beyond(
        "hyperinverter_ffhq_256.pt", "1DdYBgo66NmiuM9lVkuTeRZf7spdQAS79", _HYPERINVERTER
    ),
    # Encoders of feature maps; FSE's file holds no generator
    "hfgi-ffhq": _beyond("hfgi_ffhq.pt", "19y6pxOiJWB0NoG3fAZO9Eab66zkN9XIL", "Tengfei-Wang/HFGI"),
    "fse-ffhq": _beyond("143_enc.pth", "1RnnBL77j_Can0dY1KOiXHvG224MxjvzC", _FSE),
    "sfe-ffhq": _beyond("sfe_editor.pt", "1D2BfXLCMotRtfbDFrmBh0faRUGSiHz2u", _SFE),
    "sfe-ffhq-inverter": _beyond("sfe_inverter.pt", "1dIqojAnHdk4a__C2s8oOtu4_Y_8e85DM", _SFE),
    # Networks of losses and metrics, and initial weights of encoders
    "ir-se50": Weights(
        "model_ir_se50.pth",
        (
            "https://github.com/xinntao/facexlib/releases/download/v0.1.0/recognition_arcface_ir_se50.pth",
            _drive("1KW7bjndL3QG3sxBbZxreGHigcCCpsDgn"),
        ),
        "MIT (code of TreB1eN/InsightFace_Pytorch)",
        "TreB1eN/InsightFace_Pytorch",
        "network",
        175_367_323,
        "a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
        "faces",
    ),
    "curricularface": Weights(
        "CurricularFace_Backbone.pth",
        (_drive("1f4IwVa2-Bn9vWLwB-bUwm53U_MlvinAj"),),
        "MIT (code of HuangYG123/CurricularFace)",
        f"HuangYG123/CurricularFace; linked by {_PSP}",
        "network",
        domain="faces",
    ),
    "moco-v2": Weights(
        "moco_v2_800ep_pretrain.pth.tar",
        (
            "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
            _drive("18rLcNGdteX5LwT7sv_F7HWr12HpVEzVe"),
        ),
        "CC BY-NC 4.0 (the repository's when they were published)",
        "facebookresearch/moco",
        "network",
    ),
    "iresnet50-ms1mv3": Weights(
        "backbone.pth",
        (_drive("1coFTz-Kkgvoc_gRT8JFzqCgeC3lAFWQp"),),
        "InsightFace's (models for non-commercial research)",
        f"deepinsight/insightface; linked by {_FSE}",
        "network",
        domain="faces",
    ),
    "bisenet-celebamask": Weights(
        "79999_iter.pth",
        (_drive("154JgKpzCPW82qINcVieuPH3fZ2e0P812"),),
        "MIT (code of zllrunning/face-parsing.PyTorch)",
        f"zllrunning/face-parsing.PyTorch; linked by {_FSE}",
        "network",
        domain="faces",
    ),
    "resnet34": _torchvision("resnet34-b627a593.pth"),
    # The backbones of LPIPS; the package `lpips` contains its heads
    "alexnet": _torchvision("alexnet-owt-7be5be79.pth"),
    "vgg16": _torchvision("vgg16-397923af.pth"),
    "squeezenet": _torchvision("squeezenet1_1-b8a52dc0.pth"),
    "inception": Weights(
        "weights-inception-2015-12-05-6726825d.pth",
        (
            "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
            "weights-inception-2015-12-05-6726825d.pth",
        ),
        "Apache-2.0 (TensorFlow's models)",
        "toshas/torch-fidelity",
        "network",
        sha256="6726825d",
    ),
}


def entry_with_hash(sha256: str) -> Weights | None:
    """Returns the entry whose published hash is that of a file; None if there is none."""
    return next((one for one in TABLE.values() if one.sha256 and sha256.startswith(one.sha256)), None)
