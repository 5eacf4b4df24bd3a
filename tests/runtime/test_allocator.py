"""The allocator switch, in a process of its own as it acts on the whole process."""

from __future__ import annotations

import subprocess
import sys


def test_switch_works_or_says_that_it_does_not() -> None:
    code = (
        "from stylegan_inv.runtime.allocator import tune_allocator; import platform;"
        "took = tune_allocator(1 << 20); assert took or platform.libc_ver()[0] != 'glibc';"
        "data = [bytearray(1 << 20) for _ in range(64)]; del data; print('alive')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "alive", result.stderr
