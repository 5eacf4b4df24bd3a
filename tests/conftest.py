"""The tests run on several processes, which share the cores, in any order."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

# Before anything imports torch. Processes that tests start inherit it.
if (workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))) > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

# Trainings note here which modules their configs name; processes that tests start inherit it.
_STATE = tempfile.TemporaryDirectory(prefix="stylegan_inv_state")
os.environ["XDG_STATE_HOME"] = _STATE.name


def pytest_configure() -> None:
    """Hydra reads conf/ once, not for each composition."""
    from tests.config_files import keep_config_files

    keep_config_files()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests of `make test-long` elsewhere; there, the longest comes first, so that it is not the last."""
    if os.environ.get("STYLEGAN_INV_LONG"):
        items.sort(key=lambda item: item.path.name != "test_long_runs.py")
        return
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(pytest.mark.skip(reason="takes long; make test-long runs it"))


@pytest.fixture(scope="module", autouse=True)
def memory_is_returned() -> Iterator[None]:
    """A training in this process sets the allocator to keep freed memory for the rest of the tests."""
    yield
    if sys.platform.startswith("linux") and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # glibc
        library.malloc_trim(0)


@pytest.fixture(autouse=True)
def no_command_of_before() -> Iterator[None]:
    """A command line that ran in this process does not go on for Hydra, as it would not in a process of its own."""
    yield
    if module := sys.modules.get("hydra.core.hydra_config"):
        module.HydraConfig.instance().cfg = None
