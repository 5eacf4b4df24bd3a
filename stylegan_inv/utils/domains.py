"""Domains: what kind of images a data set, a generator or a network belongs to, and the check that they fit together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Protocol, runtime_checkable

from stylegan_inv.errors import UserError

#: ``synthfaces`` is the embedded world; ``photos`` is everything that has no name of its own.
DOMAINS = ("synthfaces", "faces", "cars", "churches", "horses", "wild", "photos")

#: What the user can give instead, by the first word of the part's name; ``{domain}`` is what it should be of.
_CURES = {
    "loss": "give domain={domain} or similarity={similarity} perceptual={perceptual}, whose networks fit",
    "metrics": "give domain={domain}, or metrics that fit",
    "features": "give features={features}",
    "generator": "give domain={domain}, or generator.domain={domain} if it makes such images",
    "start": "give a start that was trained on {domain}",
    "edit": "make a direction for this generator: python -m stylegan_inv.directions",
    "direction": "make one for this generator: python -m stylegan_inv.directions",
    "mask": "give a mask as an image, a folder or a shape",
}
_CURE = "give one of the domain {domain}"
_SIMILARITY = {"synthfaces": "embedded", "faces": "arcface"}
_PERCEPTUAL = {"synthfaces": "embedded"}


@runtime_checkable
class HasDomain(Protocol):
    """Something that was made for one domain.

    Attributes:
        domain: One of `DOMAINS`. None for any domain; for a generator or a method, None means that it is unknown.
    """

    @property
    def domain(self) -> str | None:
        """See the class."""


def check_domain_name(name: str, value: str | None) -> str | None:
    """Returns the name of a domain, or None.

    Args:
        name: What the user calls it, e.g. ``dataset.domain``.
        value: What was given.

    Raises:
        UserError: No such domain; the error has the nearest name.
    """
    if value is None or value in DOMAINS:
        return value
    nearest = get_close_matches(str(value).lower(), DOMAINS, n=1, cutoff=0.0)[0]
    raise UserError(f"{name}={value}: expected one of {', '.join(DOMAINS)}; did you mean {nearest}?")


def required_domain(name: str, value: str | None) -> str:
    """Returns the name of a domain.

    Raises:
        UserError: None was given, or a name that does not exist.
    """
    domain = check_domain_name(name, value)
    if domain is None:
        raise UserError(f"{name}: was not given; expected one of {', '.join(DOMAINS)}; photos fits any images")
    return domain


def check_domains(what: str, domain: str | None, parts: Mapping[str, object], any_domain: bool = False) -> None:
    """Checks that parts belong to one domain.

    Args:
        what: What the parts meet, with its verb: ``the data (dataset=cars) are``, ``the generator is``.
        domain: Domain of it; with None nothing is checked.
        parts: Name as the user calls it (``loss.id``, ``metrics.perceptual``, ``generator``) -> part. Parts without a
            domain fit everywhere. A generator of unknown domain fits everywhere but in ``synthfaces``.
        any_domain: Whether parts of other domains are allowed.

    Raises:
        UserError: The first part of another domain.
    """
    if domain is None or any_domain:
        return
    for name, part in parts.items():
        own = part.domain if isinstance(part, HasDomain) else None
        if own == domain:
            continue
        if own is not None:
            made = f"{type(part).__name__} was made for {own}"
            raise UserError(f"{name}: {made}, {what} of the domain {domain}; {cure(name, domain)}, or any_domain=true")
        if name == "generator" and domain == "synthfaces":
            raise UserError(
                f"{name}: its domain is unknown, {what} of the domain {domain}; give generator.domain={domain} if it "
                "makes such images, or any_domain=true"
            )


def cure(name: str, domain: str) -> str:
    """Returns what the user can give instead of a part that does not belong to a domain.

    Args:
        name: Name of the part, see `check_domains`.
        domain: Domain that the part should be of.
    """
    match = re.match(r"[a-z]+", name)
    text = _CURES.get(match[0] if match else "", _CURE)
    perceptual = _PERCEPTUAL.get(domain, "lpips")
    return text.format(
        domain=domain, similarity=_SIMILARITY.get(domain, "moco"), perceptual=perceptual, features=perceptual
    )
