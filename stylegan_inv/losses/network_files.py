"""Reading the weights of the networks that losses compare with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import read_weights
from stylegan_inv.weights.download import TABLE, fetch


def read_state(path: str | Path | None, what: str, offline: bool | None = None) -> dict[str, Tensor]:
    """The tensors of a weights file, out of the envelope ``state_dict`` where there is one.

    Args:
        path: the file, or its name in the weights table, which is downloaded once; None raises the error that says
            what is needed.
        what: network and official file, for messages.
        offline: see `runtime.weights.fetch`.

    Raises:
        UserError: no such file, one that cannot be had, or not a file of weights.
    """
    if path is None or not (str(path) in TABLE or Path(path).expanduser().is_file()):
        known = ", ".join(name for name, entry in TABLE.items() if entry.holds == "network")
        raise UserError(
            f"no file {path or 'given'}; expected {what}; give its path or its name (there are: {known}), or leave the "
            f"term out (~loss.NAME), or use loss=embedded, which needs no file"
        )
    content, _ = read_weights(fetch(path, offline=offline))
    inner = content.get("state_dict", content)
    return {str(key): value for key, value in inner.items() if isinstance(value, Tensor)}


def load_exactly(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path | None,
    what: str,
    rename: Callable[[str], str] = str,
) -> None:
    """Fills a network, which must find every tensor in its shape; more is ignored.

    Args:
        network: filled in place.
        state: the file's tensors.
        path: the file, for messages.
        what: network and official file, for messages.
        rename: name in the network -> name in the file.

    Raises:
        UserError: tensors are missing or of another shape.
    """
    own = network.state_dict()
    # Batch norm's counter is not used in evaluation, and older files lack it.
    needed = [name for name in own if not name.endswith("num_batches_tracked")]
    wrong = [name for name in needed if rename(name) not in state or state[rename(name)].shape != own[name].shape]
    if wrong:
        first = f"{rename(wrong[0])} {tuple(own[wrong[0]].shape)}"
        raise UserError(f"{path} lacks {first} and {len(wrong) - 1} more tensors; expected {what}")
    network.load_state_dict({name: state[rename(name)] for name in needed}, strict=False)
