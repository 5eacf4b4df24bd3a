"""The embedders and refiners of the matrix, and the method that a pair of them is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_inv.benchmark.quality.compared_methods import PER_IMAGE, TRAINED, Budget, ComparedMethod
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter

#: Builds a method of ``conf/method`` from its name and overrides; the command composes the config.
BuildMethod = Callable[[str, Sequence[str]], Any]


@dataclass(frozen=True)
class Embedder:
    """A method that finds codes.

    Attributes:
        name: Name in the results.
        title: Name in tables and figures.
        source: Shipped encoder, or method of ``conf/method`` if it optimises each face.
        kind: ``TRAINED`` or ``PER_IMAGE``.
    """

    name: str
    title: str
    source: str
    kind: str = TRAINED


@dataclass(frozen=True)
class Refiner:
    """A method that improves on the codes of an embedder.

    Attributes:
        name: Name in the results.
        title: Name in tables and figures.
        source: Recipe if it is trained, or method of ``conf/method`` if it optimises each face; empty for none.
        kind: ``TRAINED`` or ``PER_IMAGE``.
        overrides: Settings of a method that optimises each face.
        quick: Further overrides of a test run.
    """

    name: str
    title: str
    source: str = ""
    kind: str = TRAINED
    overrides: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


EMBEDDERS = (
    Embedder("psp", "pSp", "psp_synthfaces"),
    Embedder("e4e", "e4e", "e4e_synthfaces"),
    Embedder("restyle", "ReStyle", "restyle_synthfaces"),
    Embedder("projector", "projector", "projector", PER_IMAGE),
)
NONE = "none"
REFINERS = (
    Refiner(NONE, "none"),
    Refiner("w_plus", "W+ descent", "image2stylegan", PER_IMAGE, quick=("method.steps=3",)),
    Refiner(
        "noise",
        "noise maps",
        "image2stylegan_pp",
        PER_IMAGE,
        ("~method.stages.w",),
        ("method.stages.noise.steps=3",),
    ),
    Refiner("pti", "PTI", "pti", PER_IMAGE, quick=("method.steps=3",)),
    Refiner("sam", "SAM", "sam", PER_IMAGE, quick=("method.steps=3", "method.measure_steps=2")),
    Refiner("dhr", "DHR", "dhr", PER_IMAGE, quick=("method.steps=3", "method.weight_steps=1", "method.coarse.steps=2")),
    Refiner("hyperstyle", "HyperStyle", "hyperstyle_synthfaces"),
    Refiner("hyperinverter", "HyperInverter", "hyperinverter_synthfaces"),
    Refiner("hfgi", "HFGI", "hfgi_synthfaces"),
    Refiner("fse", "FSE", "fse_synthfaces"),
    Refiner("sfe", "SFE", "sfe_synthfaces"),
)
EMBEDDER_BY_NAME = {one.name: one for one in EMBEDDERS}
REFINER_BY_NAME = {one.name: one for one in REFINERS}
#: Overrides of an embedder that optimises each face, in a test run.
_QUICK_EMBEDDER = ("method.steps=3",)


@dataclass(frozen=True)
class Pair:
    """An embedder with a refiner.

    Attributes:
        embedder: The embedder.
        refiner: The refiner.
    """

    embedder: Embedder
    refiner: Refiner

    @property
    def name(self) -> str:
        """Name in the results: ``e4e+pti``, or that of the embedder alone."""
        return self.embedder.name if self.refiner.name == NONE else f"{self.embedder.name}+{self.refiner.name}"

    @property
    def title(self) -> str:
        """Name in tables and figures."""
        return self.embedder.title if self.refiner.name == NONE else f"{self.embedder.title} + {self.refiner.title}"

    @property
    def kind(self) -> str:
        """``PER_IMAGE`` if any of the two optimises each face."""
        return PER_IMAGE if PER_IMAGE in (self.embedder.kind, self.refiner.kind) else TRAINED

    @property
    def trains(self) -> bool:
        """Whether the refiner has training seeds."""
        return self.refiner.kind == TRAINED and self.refiner.name != NONE

    def compared(self) -> ComparedMethod:
        """Returns the description of the pair for its scores."""
        return ComparedMethod(self.name, self.title, self.kind)

    def training(self) -> ComparedMethod:
        """Returns the description of the refiner's training."""
        return ComparedMethod(self.refiner.source, self.refiner.title, TRAINED, (f"experiment={self.refiner.source}",))


def pair_of(name: str) -> Pair:
    """Returns the pair of a name, see `Pair.name`."""
    embedder, _, refiner = name.partition("+")
    return Pair(EMBEDDER_BY_NAME[embedder], REFINER_BY_NAME[refiner or NONE])


def build_pair(pair: Pair, seed: int, run: Path, budget: Budget, build: BuildMethod) -> Any:
    """Returns the method of a pair, frozen, in evaluation mode.

    Args:
        pair: The pair.
        seed: Seed of the methods that optimise each face.
        run: Run of the refiner, if it is trained.
        budget: A test run makes few steps.
        build: Builds the methods that optimise each face.

    Raises:
        UserError: The refiner cannot start from the embedder.
    """
    quick = bool(budget.training)
    own = pair.embedder
    if own.kind == PER_IMAGE:
        embedder = build(own.source, [f"seed={seed}", *_QUICK_EMBEDDER * quick])
    else:
        embedder = load_inverter(own.source)
    refiner = pair.refiner
    if refiner.name == NONE:
        return embedder
    if refiner.kind == PER_IMAGE:
        method = build(refiner.source, [f"seed={seed}", *refiner.overrides, *refiner.quick * quick])
    else:
        method = load_inverter(run)
    if not hasattr(method, "start_from"):
        raise UserError(f"{pair.name}: {refiner.title} has no start; expected a method that refines codes")
    method.start_from(embedder)
    return method.eval().requires_grad_(False)
