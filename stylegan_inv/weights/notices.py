"""Third-party notices: one table row for each file of weights that others made, with its licence and source.

``python -m stylegan_inv.weights.notices`` prints the page ``THIRD_PARTY.md`` in this folder.
"""

from __future__ import annotations

from stylegan_inv.weights.table import TABLE

_HEAD = """# Third-party weights, data and code

The package contains no weights, photographs or code of third parties. It can download the weights below on request;
each is used under the licence that its authors state. Read that licence before use: several exclude commercial use.
`licence` is what the authors state for the weights or, if they state none, for the code.

| name | file | licence | source |
|---|---|---|---|
"""
_TAIL = """
Data sets are never downloaded. FFHQ (NVIDIA), CelebA-HQ, LSUN, AFHQ and Stanford Cars have licences of their own.

The methods follow published papers; the top of each file in `stylegan_inv/methods` names the paper, the official code
and its commit. The operations of the generator are written from the mathematics of the StyleGAN papers; NVIDIA's
kernels, whose licence is non-commercial, were not used. The heads of LPIPS come with the package `lpips`
(BSD-2-Clause).
"""


def notices() -> str:
    """Returns the page in Markdown."""
    rows = (f"| `{name}` | `{w.file}` | {w.licence} | {w.source} |\n" for name, w in sorted(TABLE.items()))
    return f"{_HEAD}{''.join(rows)}{_TAIL}"


if __name__ == "__main__":
    print(notices(), end="")
