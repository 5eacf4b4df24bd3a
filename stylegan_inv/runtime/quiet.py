"""Keeps messages of libraries that a user can do nothing about out of the terminal."""

from __future__ import annotations

import logging
import warnings

_WARNINGS = (
    ".*LeafSpec.*is deprecated.*",  # Lightning calls a torch function that newer torch renamed
    ".*Experiment logs directory.*exists and is not empty.*",  # Hydra has made the folder; what lies in it is ours
    ".*does not have many workers.*",  # the embedded faces are rendered faster than they are used
    ".*no pre-optimization state was saved.*",  # concerns automatic optimisation only
    ".*`broadcast_buffers` is deprecated.*",  # its new name is unknown to older torch
    ".*module\\(s\\) in eval mode at the start of training.*",  # frozen networks are meant to be
)


def quiet_libraries() -> None:
    """Silence hints and adverts of Lightning; its warnings and errors stay, apart from those that do not apply."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
