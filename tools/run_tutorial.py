"""Follow a tutorial: write its files, type its commands, in the order of the page, and see what it says one sees.

``make tutorial`` runs it as a reader would, from nothing, in an empty folder. ``--installed`` leaves out the commands
that install, for ``tests/test_tutorial.py``. A page is made of fenced blocks with a title:

- ``python title="bot.py"`` is a file to write;
- ``console title="Terminal 1"`` has commands behind ``$``, each followed by lines that it prints;
- ``text title="Type in terminal 1"`` and ``Press in terminal 1`` are the keyboard, ``Terminal 1 shows`` the screen.

Printed lines must appear in the order of the page; others may come between them. An address that a page cuts short,
``tcrps://localhost:12345#fp=...``, is typed as the server has printed it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tools.check_docs import Block, blocks  # noqa: E402

TUTORIAL: Final = ROOT / "docs" / "tutorial.md"
COMMAND_TIMEOUT_S: Final = 240.0
_DONE: Final = "tutorial: exit status "
_INSTALLS: Final = ("python3 -m venv ", "source ", "pip install ")
_SECONDS: Final = re.compile(r"\bin \d+\.\d+s\b")
_SHORT: Final = re.compile(r"tcrps://[^\s#\"]+#fp=\.\.\.")
_EXEC: Final = "import os, sys; os.execvp(sys.argv[1], sys.argv[1:])"
_ADDRESSES_UP: Final = (
    "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 73))"
)
"""Turns on the loopback interface (SIOCSIFFLAGS) of a network namespace, which begins without one."""


class Wrong(Exception):
    """The page says something that did not happen."""


class Terminal:
    """A shell, and what has appeared on its screen."""

    def __init__(self, name: str, folder: Path, environment: Mapping[str, str]) -> None:
        """Open it in a folder."""
        self.name = name
        self._lines: list[str] = []
        self._seen = 0
        self._changed = threading.Condition()
        self._is_busy = False
        self._may_fail = False
        self._shell = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        self.type("trap : INT")

    def _read(self) -> None:
        assert self._shell.stdout is not None
        for line in self._shell.stdout:
            with self._changed:
                self._lines.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        assert self._shell.stdin is not None
        self._shell.stdin.write(f"{line}\n".encode())
        self._shell.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        os.killpg(self._shell.pid, signal.SIGINT)

    def start(self, command: str, *, may_fail: bool) -> None:
        """Type a command, once the one before has ended."""
        self.finish()
        self._is_busy, self._may_fail = True, may_fail
        self.type(f'{command}; echo "{_DONE}$?"')

    def finish(self) -> None:
        """Wait for the end of the command that runs."""
        if self._is_busy:
            status = self.expect(_DONE, whole=False).removeprefix(_DONE)
            self._is_busy = False
            if status != "0" and not self._may_fail:
                raise Wrong(f"{self.name}: exit status {status}\n{self.screen()}")

    def expect(self, line: str, *, whole: bool = True) -> str:
        """Wait until a line is on the screen, below those expected before; return it."""
        due_s = time.monotonic() + COMMAND_TIMEOUT_S
        with self._changed:
            while True:
                for index in range(self._seen, len(self._lines)):
                    shown = self._lines[index]
                    if shows(shown, line) if whole else shown.startswith(line):
                        self._seen = index + 1
                        return shown
                    if self._is_busy and whole and shown.startswith(_DONE):
                        raise Wrong(f"{self.name} does not show: {line}\n{self.screen()}")
                if not self._changed.wait(due_s - time.monotonic()):
                    raise Wrong(f"{self.name} does not show: {line}\n{self.screen()}")

    def screen(self) -> str:
        """Return all that it shows."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """End what still runs in it."""
        if self._shell.poll() is None:
            os.killpg(self._shell.pid, signal.SIGKILL)
        self._shell.wait()
        for pipe in (self._shell.stdin, self._shell.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


def shows(shown: str, expected: str) -> bool:
    """Say whether a line is the expected one: ``...`` is anything, spaces and how long it took are of no account."""
    pattern = ".*".join(re.escape(_plain(part)) for part in expected.split("..."))
    return re.fullmatch(pattern, _plain(shown)) is not None


def _plain(line: str) -> str:
    return " ".join(_SECONDS.sub("in some time", line).split())


def follow(page: Path, folder: Path, *, installed: bool) -> None:
    """Do what a page says, in an empty folder that holds ``ocm`` (unless it is installed). Raises ``Wrong``."""
    home = {"HOME": str(folder / "home"), "XDG_DATA_HOME": "", "XDG_STATE_HOME": "", "XDG_CONFIG_HOME": ""}
    (folder / "home").mkdir(exist_ok=True)
    environment = dict(os.environ, PYTHONUNBUFFERED="1", PIP_DISABLE_PIP_VERSION_CHECK="1") | home
    if installed:
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
        environment["PYTEST_ADDOPTS"] = "-p no:randomly -p no:asyncio -p no:cacheprovider"
    else:
        (folder / "ocm").symlink_to(ROOT)
    work = folder / "bot"
    terminals: dict[str, Terminal] = {}
    try:
        for block in blocks(page):
            number = re.search(r"\d+", block.title)
            if block.title.endswith(".py"):
                (work / block.title).write_text(block.text, encoding="utf-8")
            elif number is not None:
                where = work if terminals else folder
                if number[0] not in terminals:
                    terminals[number[0]] = Terminal(f"terminal {number[0]}", where, environment)
                screens = "\n".join(terminal.screen() for terminal in terminals.values())
                _act(block, terminals[number[0]], screens, installed=installed)
        for terminal in terminals.values():
            terminal.finish()
    finally:
        for terminal in terminals.values():
            terminal.close()


def in_full(command: str, screens: str) -> str:
    """Return a command with each address that is cut short as it stands on a screen. Raises ``Wrong``."""

    def find(short: re.Match[str]) -> str:
        beginning = short[0].removesuffix("...")
        found = re.search(re.escape(beginning) + "[0-9a-f]{64}", screens)
        if found is None:
            raise Wrong(f"no screen shows an address that begins with {beginning}")
        return found[0]

    return _SHORT.sub(find, command)


def _act(block: Block, terminal: Terminal, screens: str, *, installed: bool) -> None:
    lines = block.text.splitlines()
    if block.language == "console":
        may_fail = any(" failed" in line for line in lines)
        for line in lines:
            if not line.startswith("$ "):
                if line != "...":
                    terminal.expect(line)
            elif not (installed and line.removeprefix("$ ").startswith(_INSTALLS)):
                terminal.start(in_full(line.removeprefix("$ "), screens), may_fail=may_fail)
        if lines[-1].startswith("$ "):
            terminal.finish()
    elif block.title.startswith("Terminal"):
        for line in lines:
            terminal.expect(line)
    elif block.title.startswith("Press"):
        terminal.interrupt()
    else:
        for line in lines:
            terminal.type(line)


def alone(command: list[str]) -> list[str]:
    """Return a command that runs in a network of its own, where this system can: no port is taken there."""
    inside = ["unshare", "--map-root-user", "--net", sys.executable, "-c", f"{_ADDRESSES_UP}; {_EXEC}"]
    try:
        works = subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        works = False
    return [*inside, *command] if works else command


def main() -> None:
    """Follow the tutorial in an empty folder with an empty home; say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--installed", action="store_true", help="leave out the commands that install")
    installed: bool = parser.parse_args().installed
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        try:
            follow(TUTORIAL, Path(folder), installed=installed)
        except Wrong as wrong:
            sys.exit(f"tutorial: {wrong}")
    print(f"tutorial: all as printed, {time.monotonic() - started_s:.0f} s without typing and reading")


if __name__ == "__main__":
    main()
