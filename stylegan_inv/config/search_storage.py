"""The database of a search by Optuna, which is checked before Optuna opens it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import open_regular

_KEY = "hydra.sweeper.storage"
_FILE = "sqlite:///"
_START = b"SQLite format 3\0"
#: A table of every database of Optuna.
_STUDIES = "studies"
#: Packages whose errors are about the database.
_LIBRARIES = ("optuna", "sqlalchemy", "sqlite3")


def check_storage(config: DictConfig) -> None:
    """Checks that a sweep's database, if it is a file that exists, is one of Optuna.

    Args:
        config: Config of the sweep, with the node ``hydra``.

    Raises:
        UserError: A file of another program, a damaged one, or one in a folder that does not exist.
    """
    url: Any = OmegaConf.select(config, _KEY)
    if not isinstance(url, str) or not url.startswith(_FILE):
        return
    path = Path(url.removeprefix(_FILE).partition("?")[0])
    if path.name in ("", ":memory:"):
        return
    if not path.parent.is_dir():
        raise UserError(f"{_KEY}={url}: there is no folder {path.parent}; make it, or give another file")
    if not path.exists():
        return  # Optuna makes it
    expected = "a database of Optuna, or a new file"
    with open_regular(path, expected) as file:
        head = file.read(len(_START))
    if head and head != _START:
        raise UserError(f"{_KEY}={url}: is no SQLite database; expected {expected}")
    import sqlite3  # which a Python may be built without

    try:
        tables = _tables(path)
    except sqlite3.OperationalError:  # another process of the search holds a lock; Optuna waits for it
        return
    except sqlite3.DatabaseError as error:
        raise UserError(f"{_KEY}={url}: is damaged ({error}); expected {expected}") from error
    if tables and _STUDIES not in tables:
        raise UserError(f"{_KEY}={url}: holds {ascii(tables[0])[:60]} of another program; expected {expected}")


def storage_error(error: BaseException, config: DictConfig | None) -> UserError | None:
    """Returns one line for an error of Optuna or of its database; None for any other error.

    Args:
        error: The exception.
        config: Config of the sweep.
    """
    if type(error).__module__.partition(".")[0] not in _LIBRARIES:
        return None
    url = None if config is None else OmegaConf.select(config, _KEY)
    reason = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return UserError(f"{_KEY}={url}: Optuna cannot use it ({reason}); give another database or other settings")


def _tables(path: Path) -> list[str]:
    """Returns the names of the first tables of a database, which is opened to read only."""
    import sqlite3

    connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name = ? DESC LIMIT 9", (_STUDIES,)
        )
        return [str(name) for (name,) in rows]
    finally:
        connection.close()
