"""Tests of several ranks use the fixtures of the fault tests."""

from tests.faults.conftest import nothing_leaks

__all__ = ["nothing_leaks"]
