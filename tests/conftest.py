"""The tests run on several processes, which share the cores."""

from __future__ import annotations

import os

# Before anything imports torch. Processes that tests start inherit it.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
