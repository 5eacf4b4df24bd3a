"""The exception for bad input."""

from __future__ import annotations


class UserError(ValueError):
    """Raised for bad input, before any work where possible.

    The message is one line with the value, what is expected and what to do. Commands print it and exit with code 2, see
    ``stylegan_inv.utils.command_line``.
    """
