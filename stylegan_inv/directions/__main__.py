"""Finds editing directions and writes files that ``stylegan_inv.edit`` can load.

python -m stylegan_inv.directions interfacegan --attribute age --scores face_train --output age.safetensors
python -m stylegan_inv.directions interfacegan --attribute age --scores ages.csv --codes out/ --output a.safetensors
python -m stylegan_inv.directions means --attribute smile --scores factors --against age --output smile.safetensors
python -m stylegan_inv.directions sefa --layers coarse --count 5 --output directions/
python -m stylegan_inv.directions ganspace --samples 20000 --count 10 --output directions/
python -m stylegan_inv.directions show age
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.generators.class_choice import PER_IMAGE
from stylegan_inv.latents.directions import Direction, is_direction, load_direction, save_direction
from stylegan_inv.latents.discovery.difference_of_means import difference_of_means
from stylegan_inv.latents.discovery.ganspace import PRINCIPAL, components
from stylegan_inv.latents.discovery.interfacegan import extreme_codes, project_away, train_boundary
from stylegan_inv.latents.discovery.scores import csv_scores, factor_scores, predict_attributes, render
from stylegan_inv.latents.discovery.sefa import SEFA, sefa_directions
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.statistics import map_codes, sample_z
from stylegan_inv.utils.checks import LARGEST_SEED, real_number, whole_number
from stylegan_inv.utils.command_line import ArgumentParser, real, run, whole
from stylegan_inv.utils.domains import check_domains
from stylegan_inv.utils.files import check_output, check_output_file

#: Largest number of random codes, 8 GiB of them; GANSpace's paper takes a million.
MOST_SAMPLES = 4_000_000
#: Command that finds several directions -> their names without the number.
UNSUPERVISED = {"sefa": SEFA, "ganspace": PRINCIPAL}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(lambda: _find_or_show(_parser().parse_args(arguments)))


def _find_or_show(options: argparse.Namespace) -> None:
    if options.command == "show":
        _show(load_direction(options.direction))
        return
    _check_options(options)
    generator = load_generator(
        options.generator, domain=options.domain, class_label=_class(options.class_label), as_rgb=True
    )
    if options.command in ("interfacegan", "means"):
        found = [_from_scores(options, generator)]
    else:
        found = _unsupervised(options, generator)
    for direction in found:
        several = options.command in UNSUPERVISED
        target = Path(options.output) / f"{direction.name}.safetensors" if several else Path(options.output)
        direction = replace(direction, domain=generator.domain)
        print(save_direction(direction, target), *(f"{key}={value}" for key, value in direction.made.items()))


def _check_options(options: argparse.Namespace) -> None:
    """Checks numbers and the output before any work.

    Raises:
        UserError: A number out of range, or an output that cannot be written.
    """
    output = Path(options.output)
    if options.command in UNSUPERVISED:
        whole_number("--count", options.count, 1, options.samples)
        check_output(output, overwrite=True, names=["*.safetensors"])
        for number in range(options.count):
            _check_target(options, output / f"{UNSUPERVISED[options.command]}_{number}.safetensors")
        return
    real_number("--fraction", options.fraction, above=0)
    if output.suffix.lower() != ".safetensors":
        raise UserError(f"--output {output}: directions are written as .safetensors")
    _check_target(options, output)


def _check_target(options: argparse.Namespace, file: Path) -> None:
    """Raises a UserError if a direction cannot be written to a file, or would replace something else."""
    check_output_file(f"--output {file}", file, is_direction, options.overwrite, "--overwrite")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m stylegan_inv.directions", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("show", help="print the contents of a direction").add_argument("direction")
    for name in ("interfacegan", "means", "sefa", "ganspace"):
        command = commands.add_parser(name)
        command.add_argument("--generator", default="synthfaces64", help="file or name (default: %(default)s)")
        command.add_argument("--domain", help="domain of the generator's images; default: as its file says")
        command.add_argument("--any-domain", action="store_true", help="allow scores of any domain")
        command.add_argument("--output", required=True, help="file, or folder for several directions")
        command.add_argument("--overwrite", action="store_true", help="replace files that are no directions")
        command.add_argument(
            "--samples", **whole(1, MOST_SAMPLES), default=20000, help="number of random codes (default: %(default)s)"
        )
        command.add_argument("--seed", **whole(0, LARGEST_SEED), default=0)
        command.add_argument(
            "--class", dest="class_label", help="class of a conditional generator; none: all (default)"
        )
        command.add_argument("--layers", help="coarse, middle, fine or a range such as 0-3; default: all")
        if name in UNSUPERVISED:
            command.add_argument(
                "--count", **whole(1, 1000), default=5, help="number of directions (default: %(default)s)"
            )
            continue
        command.add_argument("--attribute", required=True)
        command.add_argument("--scores", required=True, help="a face network, a CSV file, or factors (SynthFaces)")
        command.add_argument("--codes", help="output folder of stylegan_inv.invert; default: random codes")
        command.add_argument(
            "--fraction", **real(0, 1), default=0.02, help="fraction of the codes on each side (default: %(default)s)"
        )
        command.add_argument("--against", nargs="*", default=[], help="directions that must not change")
    return parser


def _class(text: str | None) -> int | str | None:
    if text == PER_IMAGE:
        raise UserError(f"--class {text}: random codes belong to no image; give a number, or none for all classes")
    return int(text) if text is not None and text.isdecimal() else text


def _from_scores(options: argparse.Namespace, generator: Generator) -> Direction:
    against = [load_direction(name, generator) for name in options.against]
    if any(direction.space != "w" for direction in against):
        raise UserError("--against: got a direction in w+, expected directions in w")
    w, scores = _scored_codes(options, generator)
    made = {"by": options.command, "scores": options.scores, "codes": str(len(w)), "fraction": str(options.fraction)}
    made.update({"seed": str(options.seed), "against": " ".join(options.against)})
    if options.command == "means":
        top, bottom = extreme_codes(scores, options.fraction)
        direction = difference_of_means(w[top], w[bottom], options.attribute)
    else:
        boundary = train_boundary(w, scores, options.fraction, seed=options.seed)
        made["accuracy"] = "not measured" if boundary.accuracy is None else f"{boundary.accuracy:.4f}"
        direction = Direction(boundary.normal, options.attribute)
    vector = project_away(direction.vector, [other.vector for other in against])
    layers = None if options.layers is None else tuple(layer_range(options.layers, generator.num_ws))
    return replace(direction, vector=vector.cpu(), layers=layers, generator_hash=generator.source_hash, made={**made})


def _scored_codes(options: argparse.Namespace, generator: Generator) -> tuple[Tensor, Tensor]:
    from_file = Path(options.scores).suffix.lower() == ".csv"
    if options.codes is not None:
        from stylegan_inv.latents.saved_codes import read_latents

        latents = read_latents(options.codes)
        # A boundary is in W, so the mean over the layers of w+ codes is used.
        w, z, names = latents.w.mean(1), None, latents.names
        if w.shape[1] != generator.w_dim:
            raise UserError(f"--codes: got codes of size {w.shape[1]}, expected {generator.w_dim}, as of the generator")
    else:
        z, names = sample_z(generator, options.samples, options.seed), None
        w = map_codes(generator, z)
    if from_file:
        scores = csv_scores(options.scores, options.attribute, names)
    elif options.scores == "factors":
        if z is None:
            raise UserError("--scores factors: known for random codes only; omit --codes")
        _check_domain(options, generator, "synthfaces")
        scores = _pick(factor_scores(z), options)
    else:
        from stylegan_inv.encoders.face_network import load_face_network

        network = load_face_network(options.scores)
        _check_domain(options, generator, network.domain)
        parts = [predict_attributes(network, render(generator, part)) for part in w.split(500)]
        scores = _pick({name: torch.cat([part[name] for part in parts]) for name in parts[0]}, options)
    return w, scores


def _check_domain(options: argparse.Namespace, generator: Generator, domain: str | None) -> None:
    what = f"the scores ({options.scores}) are"
    check_domains(what, domain, {"generator": generator}, options.any_domain, flags=True)


def _pick(scores: dict[str, Tensor], options: argparse.Namespace) -> Tensor:
    if options.attribute not in scores:
        raise UserError(f"--attribute {options.attribute}: expected one of {', '.join(scores)}")
    return scores[options.attribute]


def _unsupervised(options: argparse.Namespace, generator: Generator) -> list[Direction]:
    layers = None if options.layers is None else layer_range(options.layers, generator.num_ws)
    if options.command == "sefa":
        found = sefa_directions(generator, layers, options.count)
        # Weights define no length. One unit is a standard deviation of codes, as for the principal components.
        w = map_codes(generator, sample_z(generator, options.samples, options.seed))
        return [replace(direction, unit=float((w @ direction.vector.to(w)).std())) for direction in found]
    w = map_codes(generator, sample_z(generator, options.samples, options.seed))
    principal = components(w, options.count, generator.source_hash)
    return [principal.direction(k, layers) for k in range(options.count)]


def _show(direction: Direction) -> None:
    layers = "all" if direction.layers is None else ", ".join(map(str, direction.layers))
    for key, value in {
        "name": direction.name,
        "space": direction.space,
        "shape": tuple(direction.vector.shape),
        "layers": layers,
        "unit": f"{direction.unit:g} in W",
        "generator": direction.generator_hash or "unknown",
        "domain": direction.domain or "unknown",
        **direction.made,
    }.items():
        print(f"{key:<12}{value}")


if __name__ == "__main__":
    main()
