"""What the tests of files that claim too much share: each file is refused in one line, at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stylegan_inv.errors import UserError


def refused(read: Callable[[Path], Any], path: Path) -> str:
    """Returns the one line with which a file is refused."""
    with pytest.raises(UserError) as info:
        read(path)
    message = str(info.value)
    assert "\n" not in message and len(message) < 1000
    return message
