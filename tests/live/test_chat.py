"""`samebits chat` as a person at a terminal meets it: editing, Ctrl-C, Ctrl-D, history."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path
from typing import Any

import pytest

PROMPT = "> "


class Terminal:
    """A program at the other end of a pseudo-terminal."""

    def __init__(self, command: list[str], state: Path) -> None:
        self.master, slave = pty.openpty()
        environment = dict(os.environ, XDG_STATE_HOME=str(state), TERM="xterm", LC_ALL="C.UTF-8")
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(slave)
        self.text = ""

    def wait_for(self, pattern: str, seconds: float = 60) -> str:
        """Reads until the pattern matches; what comes behind it is kept for the next call."""
        end = time.monotonic() + seconds
        while not (match := re.search(pattern, self.text)):
            left = end - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.text!r}"
            ready, _, _ = select.select([self.master], [], [], left)
            if ready:
                try:
                    data = os.read(self.master, 65536)
                except OSError:
                    data = b""
                assert data, f"ended before {pattern!r}: {self.text!r}"
                self.text += data.decode(errors="replace")
        text, self.text = self.text[: match.end()], self.text[match.end() :]
        return text

    def prompt(self) -> None:
        """Waits until a line is read: behind the prompt the terminal leaves its line mode."""
        self.wait_for(PROMPT)
        while termios.tcgetattr(self.master)[3] & termios.ICANON:
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> int:
        try:
            return self.process.wait(timeout=30)
        finally:
            self.process.kill()
            os.close(self.master)


@pytest.fixture
def terminal(samebits_program: Any, nano: Path, tmp_path: Path) -> Any:
    opened: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        command = [str(samebits_program.binary), "chat", str(nano), *arguments]
        opened.append(Terminal(command, tmp_path))
        opened[-1].prompt()
        return opened[-1]

    yield start
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def test_a_line_is_edited_and_remembered(terminal: Any) -> None:
    first = terminal()
    first.type("What is 17 + 26?\x7f\x7f5?\r")  # two characters back
    first.wait_for(r"#### 42\r?\n")
    first.prompt()
    first.type("/reset\r")
    first.prompt()
    first.type("\x1b[A\x1b[A\r")  # the line before the last
    first.wait_for(r"#### 42\r?\n")
    first.prompt()
    first.type("\x04")
    assert first.close() == 0
    second = terminal()  # and in the next session
    second.type("\x1b[A\r")
    second.wait_for(r"#### 42\r?\n")
    second.prompt()
    second.type("/exit\r")
    assert second.close() == 0


def test_control_c_empties_a_line(terminal: Any) -> None:
    chat = terminal()
    chat.type("nonsense")
    chat.wait_for("nonsense")
    chat.type("\x03")
    time.sleep(0.3)
    chat.type("What is 17 + 25?\r")
    chat.wait_for(r"#### 42\r?\n")
    chat.prompt()
    chat.type("\x04")
    assert chat.close() == 0


def test_control_c_stops_the_answer_alone(terminal: Any) -> None:
    # At this temperature the model babbles on for long.
    chat = terminal("--temperature", "1000", "--top-k", "0", "--max-tokens", "900")
    chat.type("What is 17 + 25?\r")
    chat.wait_for(r"25\?\r?\n.+")
    chat.process.send_signal(signal.SIGINT)
    chat.wait_for(r"\(stopped\)")
    chat.prompt()
    chat.type("/nothing\r")
    chat.wait_for("no such command")
    chat.type("/exit\r")
    assert chat.close() == 0
