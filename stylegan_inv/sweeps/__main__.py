"""Prints a sweep for Weights & Biases: the same overrides as for ``python -m stylegan_inv.train -m``.

python -m stylegan_inv.sweeps wandb sweep=loss_weights method=psp > sweep.yaml
wandb sweep sweep.yaml            # prints the command of an agent; any number of agents may run
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import yaml
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from stylegan_inv.config import as_typed, check_groups, explained
from stylegan_inv.sweeps.wandb_sweep import wandb_sweep
from stylegan_inv.utils.command_line import ArgumentParser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(lambda: _print_sweep(arguments), errors=(HydraException, OmegaConfBaseException))


def _print_sweep(arguments: Sequence[str] | None) -> None:
    parser = ArgumentParser(
        prog="python -m stylegan_inv.sweeps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("service", choices=("wandb",), help="service that runs the sweep")
    parser.add_argument("overrides", nargs="*", help="overrides of stylegan_inv.train, e.g. sweep=loss_weights")
    options = parser.parse_args(arguments)
    overrides = as_typed(options.overrides)
    check_groups(overrides)
    try:
        sweep = wandb_sweep(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, "train", options.overrides) from error
    print(yaml.safe_dump(sweep, sort_keys=False), end="")


if __name__ == "__main__":
    main()
