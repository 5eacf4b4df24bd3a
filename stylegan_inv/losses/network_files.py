"""Reads the weights of the networks that losses and metrics use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import network_state, read_weights, unusable_values
from stylegan_inv.weights.download import fetch
from stylegan_inv.weights.table import TABLE


def read_state(path: str | Path | None, what: str, offline: bool | None = None) -> dict[str, Tensor]:
    """Returns the tensors of a weights file by their plain names; reads the entry ``state_dict`` if there is one.

    Args:
        path: The file, or a name in the weights table, whose file is downloaded once. None raises the error that
            names the file that is needed.
        what: Network and official file, for messages.
        offline: See `weights.download.fetch`.

    Raises:
        UserError: There is no such file, it cannot be downloaded, or it is not a weights file.
    """
    if path is None or not (str(path) in TABLE or Path(path).expanduser().is_file()):
        known = ", ".join(name for name, entry in TABLE.items() if entry.holds == "network")
        raise UserError(
            f"no file {path or 'given'}; expected {what}; give its path or one of the names {known}, or leave "
            f"the term out (~loss.NAME)"
        )
    content, _ = read_weights(fetch(path, offline=offline))
    try:
        return network_state(content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def load_exactly(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path | None,
    what: str,
    rename: Callable[[str], str] = str,
) -> None:
    """Loads tensors into a network. Every tensor of the network is required; further ones in the file are ignored.

    Args:
        network: Is changed in place.
        state: Tensors of the file.
        path: The file, for messages.
        what: Network and official file, for messages.
        rename: Maps a name in the network to the name in the file.

    Raises:
        UserError: Tensors are missing, have another shape, or hold no finite floating point numbers.
    """
    own = network.state_dict()
    # Older files lack the counter of batch norm, which evaluation does not use.
    required = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [name for name in required if rename(name) not in state or state[rename(name)].shape != own[name].shape]
    if wrong:
        first = f"{rename(wrong[0])} {tuple(own[wrong[0]].shape)}"
        raise UserError(f"{path} lacks {first} and {len(wrong) - 1} more tensors; expected {what}")
    found = {name: state[rename(name)] for name in required}
    if values := unusable_values(own, found):
        raise UserError(f"{path}: {values[0]}; expected {what}")
    network.load_state_dict(found, strict=False)
