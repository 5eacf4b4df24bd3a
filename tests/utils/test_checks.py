"""Checks of numbers and words: valid and invalid values, and the messages."""

from __future__ import annotations

import math

import pytest

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, real_number, real_numbers, whole_number


def test_right_values_come_back_unchanged() -> None:
    assert whole_number("n", 3) == 3
    assert whole_number("n", -3, least=None) == -3
    assert real_number("x", 2) == 2.0
    assert real_number("x", 0.5, least=0, most=1) == 0.5
    assert real_numbers("x", [1, 2.5]) == [1.0, 2.5]
    assert real_numbers("x", 3) == [3.0]
    assert one_of("mode", "crop", ("crop", "fit")) == "crop"


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "3", None, math.nan])
def test_whole_number_refuses(value: object) -> None:
    with pytest.raises(UserError, match=r"n=.*: expected a whole number of at least 1; give more"):
        whole_number("n", value, hint="give more")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, True, "1", None])
def test_real_number_refuses_what_is_no_finite_number(value: object) -> None:
    with pytest.raises(UserError, match="x=.*: expected a number"):
        real_number("x", value)


def test_bounds_are_named() -> None:
    with pytest.raises(UserError, match="x=2: expected a number from 0 to 1"):
        real_number("x", 2, least=0, most=1)
    with pytest.raises(UserError, match="x=0: expected a number above 0"):
        real_number("x", 0, above=0)
    with pytest.raises(UserError, match="n=9: expected a whole number from 1 to 8"):
        whole_number("n", 9, most=8)
    with pytest.raises(UserError, match="n=9: expected a whole number of at most 8"):
        whole_number("n", 9, least=None, most=8)


def test_lists_and_words() -> None:
    with pytest.raises(UserError, match="x=.*: expected 2 numbers"):
        real_numbers("x", [1], count=2)
    with pytest.raises(UserError, match="x=.*: expected numbers"):
        real_numbers("x", [])
    with pytest.raises(UserError, match="x=.*: expected numbers"):
        real_numbers("x", "12")
    with pytest.raises(UserError, match="mode=fill: expected one of crop, fit"):
        one_of("mode", "fill", ("crop", "fit"))


ODD = {"large": 10**400, "low": -(10**400), "endless": 10**5000, "in a list": [10**5000], "lines": "1\n2",
       "a code": "\x1b[2J", "lists": [[1]], "a mapping": {"a": 1}}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_values_of_files_are_one_line(kind: str) -> None:
    """A value of a stranger's config or checkpoint may be too large for a float or a text, or no text of one line."""
    value = ODD[kind]
    for check in (
        lambda: real_number("x", value),
        lambda: real_numbers("x", value, 2),
        lambda: whole_number("x", value, most=10),
        lambda: one_of("x", value, {"a": 1}),
    ):
        with pytest.raises(UserError, match="^x=.*: expected") as error:
            check()
        assert str(error.value).isprintable() and len(str(error.value)) < 400
