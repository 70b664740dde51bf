"""Makes the picture of the live view: runs the sweep of the dictionary size on a terminal, and draws its screen.

    python docs/make_progress_picture.py STORAGE [CHROMIUM] [-- FLAGS]

STORAGE is where the sweep writes, and must not hold its results yet; CHROMIUM the browser's program, by default
`chromium` on the path. The screen is drawn as it is when a third of the trials have ended; the sweep goes on to its
end, so that `make_pictures.py STORAGE` can follow.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
PICTURE = Path(__file__).parent / "pictures" / "progress.png"
ROWS, COLUMNS = 40, 118

COUNTS = re.compile(r"(\d+) done · (\d+) running · (\d+) waiting")
PIECE = re.compile(r"\x1b\[(\d*)A|(\x1b\[2K)|(\n)|(\x1b\[[\d;]*m)|\x1b\[[?\d;]*[A-Za-z]|([^\x1b\n\r]+)")
"""Up, erase the line, next line, colour, any other control, text: all that the view writes."""


def screens(command: list[str]) -> Iterator[list[str]]:
    """Lines of the terminal, with their colours, whenever the command has written something."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execve(command[0], command, {**os.environ, "TERM": "xterm-256color"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    lines, row, rest = [""], 0, ""
    while True:
        try:
            rest += os.read(terminal, 65536).decode(errors="ignore")
        except OSError:  # what Linux raises where the other end is closed
            break
        cut = rest.rindex("\x1b") if "\x1b" in rest[-8:] else len(rest)  # a control may have come in part
        whole, rest = rest[:cut], rest[cut:]
        for up, erase, newline, colour, text in PIECE.findall(whole):
            if erase:
                lines[row] = ""
            elif newline:
                row += 1
                lines += [""] * (row == len(lines))
            elif colour or text:
                lines[row] += colour or text
            elif up:
                row = max(0, row - int(up))
        yield lines
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise SystemExit(f"the sweep ended with status {status}:\n{os.linesep.join(lines)}")


def draw(lines: list[str], command: str, chromium: str) -> None:
    """The screen as a picture."""
    from playwright.sync_api import sync_playwright

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi("\n".join([f"$ {command}", *lines])), soft_wrap=True)
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="ccim_ray"), flags=re.DOTALL)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.set_content(f"<body style='margin:0'>{svg}</body>")
        page.locator("svg").screenshot(path=str(PICTURE), omit_background=True)
        browser.close()


def main(words: list[str]) -> None:
    """Draw the first screen on which a third of the trials are done and one has trained an epoch."""
    mine, _, flags = (" ".join(words)).partition(" -- ")
    storage, *named = mine.split()
    chromium = named[0] if named else shutil.which("chromium") or "chromium"
    job = ["jobs/sweep_dict_size.py", *flags.split()]
    chosen: list[str] = []
    for lines in screens([sys.executable, *job, "--storage", storage]):
        text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(lines))
        found = COUNTS.search(text)
        if found and not chosen and re.search(r"epoch [1-9]", text):
            done, running, waiting = map(int, found.groups())
            if running and 3 * done >= done + running + waiting:
                chosen = list(lines)
    if not chosen:
        raise SystemExit(f"no screen of the view was seen; has {storage} the results already?")
    while not chosen[-1].strip():
        del chosen[-1]
    draw(chosen[-ROWS:], " ".join(["python", *job]), chromium)


if __name__ == "__main__":
    main(sys.argv[1:])
