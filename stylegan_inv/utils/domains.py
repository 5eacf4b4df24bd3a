"""Domains: what kind of images a data set, a generator or a network belongs to, and the check that they agree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Protocol, runtime_checkable

from stylegan_inv.errors import UserError

#: ``synthfaces`` is the embedded world; ``photos`` is everything that has no name of its own.
DOMAINS = ("synthfaces", "faces", "cars", "churches", "horses", "wild", "photos")

#: What the user can give instead of a part, by the first word of its name; ``{domain}`` is what it should be of.
_CURES = {
    "loss": "give domain={domain} or similarity={similarity} perceptual={perceptual}",
    "metrics": "give domain={domain} or leave it out (~{name})",
    "features": "give domain={domain} or features={perceptual}",
    "generator": "give domain={domain}, or generator.domain={domain} if it makes such images",
    "start": "give the run of a method for {domain}",
    "run": "give the run of a method for {domain}",
    "direction": "make one for this generator (python -m stylegan_inv.directions)",
}
_SIMILARITY = {"synthfaces": "embedded", "faces": "arcface"}
_PERCEPTUAL = {"synthfaces": "embedded"}


@runtime_checkable
class HasDomain(Protocol):
    """Something that was made for one domain.

    Attributes:
        domain: One of `DOMAINS`. None for any domain; for a generator, a method or data, None means that it is unknown.
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


def domain_of(part: object) -> str | None:
    """Returns the domain of a part; None if it has none, or if it is unknown."""
    return part.domain if isinstance(part, HasDomain) else None


def check_domains(
    what: str, domain: str | None, parts: Mapping[str, object], any_domain: bool = False, *, flags: bool = False
) -> None:
    """Checks that parts belong to one domain.

    Args:
        what: What the parts meet, with its verb: ``the data (dataset=cars) are``, ``the generator is``.
        domain: Domain of it; with None nothing is checked.
        parts: Name as the user calls it (``loss.id``, ``metrics.perceptual``, ``generator``) -> part. Parts without a
            domain fit everywhere. A generator of unknown domain fits everywhere but in ``synthfaces``.
        any_domain: Whether parts of other domains are allowed.
        flags: Whether the command has options ``--domain`` and ``--any-domain`` instead of a config.

    Raises:
        UserError: The first part of another domain.
    """
    if domain is None or any_domain:
        return
    switch, generator_domain = ("--any-domain", "--domain ") if flags else ("any_domain=true", "generator.domain=")
    for name, part in parts.items():
        own = domain_of(part)
        unknown_generator = own is None and name == "generator" and domain == "synthfaces"
        if own in (None, domain) and not unknown_generator:
            continue
        got = "its domain is unknown" if own is None else f"{type(part).__name__} was made for {own}"
        if name == "generator" and (own is None or flags):
            hint = f"give {generator_domain}{domain} if it makes such images"
        elif domain == "photos" and own != "synthfaces":
            hint = f"give domain={own} if they show {own}"
        else:
            hint = _cure(name, domain)
        raise UserError(f"{name}: {got}, {what} of the domain {domain}; {hint}, or {switch}")


def _cure(name: str, domain: str) -> str:
    """Returns what the user can give instead of a part that does not belong to a domain."""
    word = re.match(r"[a-z]*", name.removeprefix("start."))
    text = _CURES.get(word[0] if word else "", "give one of the domain {domain}")
    similarity, perceptual = _SIMILARITY.get(domain, "moco"), _PERCEPTUAL.get(domain, "lpips")
    return text.format(name=name, domain=domain, similarity=similarity, perceptual=perceptual)
