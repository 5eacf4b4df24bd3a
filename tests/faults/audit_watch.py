"""Watches what code does to files, processes and the network."""

from __future__ import annotations

import sys
from typing import Any


class Watch:
    """Records what an attack could do, by Python's audit events (PEP 578), which a program cannot avoid."""

    FORBIDDEN = (
        "os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn subprocess.Popen os.mkdir os.remove os.rename "
        "os.rmdir os.truncate os.symlink os.link shutil.rmtree shutil.copytree shutil.copyfile shutil.make_archive "
        "shutil.move socket.connect urllib.Request"
    ).split()

    def __init__(self) -> None:
        self.active, self.seen = False, list[str]()
        sys.addaudithook(self._note)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        foreign = event == "import" and str(arguments[0]).partition(".")[0] in ("evil", "checkpoints", "None")
        library = event == "ctypes.dlopen" and "/" in str(arguments[0])  # PyTorch asks for the driver by its name
        if event in self.FORBIDDEN or writes or foreign or library:
            self.seen.append(f"{event} {arguments[:2]}")


WATCH = Watch()
