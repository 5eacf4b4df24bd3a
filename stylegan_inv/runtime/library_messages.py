"""Silences messages of libraries that the user cannot act on."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

_WARNINGS = (
    ".*LeafSpec.*is deprecated.*",  # Lightning calls a torch function that newer torch renamed
    ".*Experiment logs directory.*exists and is not empty.*",  # Hydra has made the folder and written into it
    ".*does not have many workers.*",  # SynthFaces are rendered faster than they are used
    ".*no pre-optimization state was saved.*",  # concerns automatic optimisation only
    ".*`broadcast_buffers` is deprecated.*",  # older torch does not know the new name
    ".*module\\(s\\) in eval mode at the start of training.*",  # frozen networks are meant to be
)


def silence_library_messages() -> None:
    """Silences hints and adverts of Lightning; its errors and the warnings that apply to this package stay."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)


@contextlib.contextmanager
def errors_of_log_files_hidden() -> Iterator[None]:
    """Hides the traceback that `logging` prints for each message that a full disk keeps out of a log file."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before
