"""Claims of the papers that leave W+, as differences between pairs of an embedder and a refiner."""

from __future__ import annotations

from stylegan_inv.benchmark.quality.claims import Claim

_MSE, _ID, _SECONDS, _TARGET, _STYLE = "clear/mse", "clear/id", "seconds", "edits/target", "clear/nscd"
_UP = True  # higher values are better
_DESCENT, _PTI = "e4e+w_plus", "e4e+pti"

CLAIMS = (
    Claim("HyperStyle", "MSE is below that of its embedder", _MSE, "e4e+hyperstyle", "e4e"),
    Claim("HyperStyle", "MSE is below that of W+ descent", _MSE, "e4e+hyperstyle", _DESCENT),
    Claim("HyperStyle", "PTI's distortion: MSE is below PTI's", _MSE, "e4e+hyperstyle", _PTI),
    Claim("HyperStyle", "… at an encoder's price: seconds are below PTI's", _SECONDS, "e4e+hyperstyle", _PTI),
    Claim("HyperInverter", "MSE is below that of its embedder", _MSE, "e4e+hyperinverter", "e4e"),
    Claim("HyperInverter", "MSE is below ReStyle's", _MSE, "e4e+hyperinverter", "restyle"),
    Claim("HyperInverter", "edits change the target more than PTI's", _TARGET, "e4e+hyperinverter", _PTI, None, _UP),
    Claim("HFGI", "MSE is below e4e's", _MSE, "e4e+hfgi", "e4e"),
    Claim("HFGI", "MSE is below ReStyle's", _MSE, "e4e+hfgi", "restyle"),
    Claim("HFGI", "edits change the target more than W+ descent's", _TARGET, "e4e+hfgi", _DESCENT, None, _UP),
    Claim("FSE", "MSE is below ReStyle's over pSp", _MSE, "psp+fse", "restyle"),
    Claim("FSE", "identity similarity is above HFGI's", _ID, "e4e+fse", "e4e+hfgi", None, _UP),
    Claim("FSE", "edits change the target more than PTI's", _TARGET, "e4e+fse", _PTI, None, _UP),
    Claim("SFE", "fine detail: MSE is below HFGI's", _MSE, "e4e+sfe", "e4e+hfgi"),
    Claim("SFE", "fine detail: MSE is below FSE's", _MSE, "e4e+sfe", "e4e+fse"),
    Claim("SFE", "… and editable: edits change the target more than FSE's", _TARGET, "e4e+sfe", "e4e+fse", None, _UP),
    Claim("SAM", "MSE is below that of W+ descent", _MSE, "e4e+sam", _DESCENT),
    Claim("SAM", "edits change the target more than W+ descent's", _TARGET, "e4e+sam", _DESCENT, None, _UP),
    Claim("DHR", "MSE is below PTI's", _MSE, "e4e+dhr", _PTI),
    Claim("DHR", "MSE is below HyperStyle's", _MSE, "e4e+dhr", "e4e+hyperstyle"),
    Claim("DHR", "edits change the target more than PTI's", _TARGET, "e4e+dhr", _PTI, None, _UP),
    Claim("DHR", "seconds are below PTI's", _SECONDS, "e4e+dhr", _PTI),
    Claim("LSAP", "style distance of e4e's codes is below pSp's", _STYLE, "e4e", "psp"),
)  # fmt: skip
