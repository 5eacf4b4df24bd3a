"""The console script: ``stylegan-inv train method=restyle`` runs ``python -m stylegan_inv.train method=restyle``.

Importing this module imports no other module of the package; a command is imported when it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

PROGRAM = "stylegan-inv"
#: Command, which is a module of the package -> what it does.
COMMANDS = {
    "train": "Train a method",
    "invert": "Invert images into latent codes",
    "edit": "Edit images, latent codes or random samples",
    "evaluate": "Score a method on a data set",
    "benchmark": "Compare all methods on SynthFaces, or measure speed",
    "report": "Write an HTML page about a run or a sweep",
    "prepare": "Align, mask, pack and verify images",
    "directions": "Find directions of attributes in the latent space",
    "convert": "Convert weights between file formats",
    "sweeps": "Print a sweep for Weights & Biases",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: Name of the command and its arguments; ``sys.argv[1:]`` if None.

    Returns:
        The exit code. A command that fails raises ``SystemExit`` with its own.
    """
    command, *rest = list(sys.argv[1:] if arguments is None else arguments) or [""]
    if command in ("-h", "--help", "help"):
        return _show(usage())
    if command == "--version":
        return _show(f"{PROGRAM} {sys.modules['stylegan_inv'].__version__}")
    if not command:
        print(usage(), file=sys.stderr)
        return 2
    if command not in COMMANDS:
        from stylegan_inv.errors import UserError
        from stylegan_inv.utils.command_line import report_error

        return report_error(UserError(unknown(command)))
    run(command, rest)
    return 0


def _show(text: str) -> int:
    from stylegan_inv.utils import command_line

    command_line.run(lambda: print(text))
    return 0


def usage() -> str:
    """Returns the help text: one line for each command."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    header = [f"usage: {PROGRAM} COMMAND [ARGUMENT ...]", "", "commands:"]
    return "\n".join([*header, *lines, "", f"{PROGRAM} COMMAND --help shows the arguments of a command."])


def unknown(command: str) -> str:
    """Returns the error message for a command that does not exist, with the most similar one that does."""
    from difflib import get_close_matches

    similar = get_close_matches(command, COMMANDS, n=1, cutoff=0.0)[0]
    return f"{PROGRAM} {command}: unknown command; did you mean {similar}? {PROGRAM} --help lists all commands"


def run(command: str, arguments: Sequence[str]) -> None:
    """Runs a module of the package as ``python -m`` does.

    Lightning and Hydra read the name of the command from ``__main__`` and start further processes by
    ``python -m stylegan_inv.<command>``.
    """
    import runpy

    # `python -m` puts the working directory first, where configs find the user's own classes.
    if "" not in sys.path and not getattr(sys.flags, "safe_path", False):  # the flag exists since Python 3.11
        sys.path.insert(0, "")
    sys.argv = [PROGRAM, *arguments]
    runpy.run_module(f"stylegan_inv.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    sys.exit(main())
