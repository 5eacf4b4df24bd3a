"""The one exception that means: what you gave cannot work, and here is what would."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, found before any work started.

    The message is one line that says what was got, what was expected and what to do.
    The entry points print it and exit with code 2 (see ``stylegan_inv.config.entry_point``).
    """
