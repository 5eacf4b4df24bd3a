"""Prints a sweep for Weights & Biases: the same overrides as for ``python -m stylegan_inv.train -m``.

python -m stylegan_inv.sweeps wandb sweep=loss_weights method=psp > sweep.yaml
wandb sweep sweep.yaml            # prints the command of an agent; any number of agents may run
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.config import report
from stylegan_inv.errors import UserError
from stylegan_inv.sweeps.wandb_sweep import wandb_sweep


def main(arguments: Sequence[str]) -> None:
    """Print the sweep of ``wandb <overrides>``."""
    if not arguments or arguments[0] != "wandb" or any(a.startswith("-") for a in arguments):
        sys.exit((__doc__ or "").strip())
    try:
        sweep = wandb_sweep(arguments[1:])
    except (UserError, HydraException, OmegaConfBaseException) as error:
        sys.exit(report(error))
    print(yaml.safe_dump(sweep, sort_keys=False), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
