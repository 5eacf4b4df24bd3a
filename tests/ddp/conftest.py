"""The same holds for tests of several ranks as for those of faults."""

from tests.faults.conftest import nothing_leaks

__all__ = ["nothing_leaks"]
