#!/usr/bin/env python3
"""Records a session of udgram on a terminal as docs/session.svg.

Usage: docs/record.py [DIRECTORY OF udgram]. Runs COMMANDS in one shell, in a new directory, with a
terminal as its output, and draws what it printed, when it printed it. The colours follow those of the
reader's system.
"""

import html
import os
import pty
import re
import subprocess
import sys
import tempfile

COMMANDS = [
    "udgram listen -p text --exec 'tr a-z A-Z' upper.sock >/dev/null &",
    "udgram send -p text --reply --timeout 2s upper.sock 'hello there'",
    "udgram ls upper.sock",
    "udgram recv in.sock -- cat /dev/fd/3 &",
    "udgram send --fd 5 in.sock '{\"file\":\"secret\"}' 5<secret.txt",
    "udgram listen --envelope --count 1 app.sock &",
    "udgram send app.sock '{\"op\":\"start\"}'",
    "udgram send missing.sock '{}'; echo \"status $?\"",
]
WIDTH = 94  # columns
PAUSE = 0.4  # seconds for the output of background commands
TYPING = 1.0  # seconds between two commands of the picture
LINE, COLUMN, MARGIN = 20, 8.43, 18  # pixels

# Runs its arguments one by one, each after its text in a mark of its own.
SHELL = r"""
stty cols %d rows 50
for command; do
    printf '\036%%s\036\n' "$command"
    eval "$command"
    sleep %s
done
kill %%1
""" % (WIDTH, PAUSE)

STYLE = """
text { font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #1f2328; white-space: pre; }
.back { fill: #f6f8fa; stroke: #d1d9e0; }
.prompt { fill: #59636e; } .command { font-weight: bold; }
.bold { font-weight: bold; }
.c31 { fill: #cf222e; } .c32 { fill: #1a7f37; } .c33 { fill: #9a6700; }
.c34 { fill: #0969da; } .c35 { fill: #8250df; } .c36 { fill: #1b7c83; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .back { fill: #151b23; stroke: #3d444d; } .prompt { fill: #9198a1; }
  .c31 { fill: #ff7b72; } .c32 { fill: #3fb950; } .c33 { fill: #d29922; }
  .c34 { fill: #79c0ff; } .c35 { fill: #d2a8ff; } .c36 { fill: #56d4dd; }
}
@media (prefers-reduced-motion: no-preference) {
  g { animation: show 1ms backwards; }
  @keyframes show { from { opacity: 0; } }
}
"""


def record(programs):
    """Returns the output of the shell."""
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "secret.txt"), "w") as file:
            file.write("only the sender can open me\n")
        master, slave = pty.openpty()
        environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
        shell = subprocess.Popen(
            ["bash", "-c", SHELL, "bash", *COMMANDS],
            cwd=directory, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )
        os.close(slave)
        output = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # the last process has closed the terminal
                break
            output += data
        shell.wait()
    return output.decode().replace("\r\n", "\n")


def lines(output):
    """Yields each line of the picture: its time and its spans, each a class and text."""
    clock = 0.0
    for block in output.split("\x1e")[1:]:
        if not block.startswith("\n"):
            clock += TYPING
            yield clock, [("prompt", "$ "), ("command", block)]
            continue
        clock += PAUSE
        for line in block[1:].splitlines():
            spans, style = [], ""
            for part in re.split(r"(\x1b\[[0-9;]*m)", line):
                if part.startswith("\x1b"):
                    codes = part[2:-1].split(";")
                    style = " ".join("bold" if code == "1" else f"c{code}" for code in codes if code not in ("", "0"))
                elif part:
                    spans.append((style, part))
            yield clock, spans


def wrap(spans):
    """Yields the rows of a line, as the terminal wraps it."""
    row, room = [], WIDTH
    for style, text in spans:
        while text:
            row.append((style, text[:room]))
            taken = len(row[-1][1])
            text, room = text[taken:], room - taken
            if not room:
                yield row
                row, room = [], WIDTH
    if row:
        yield row


def draw(rows):
    """Returns the picture."""
    width, height = round(WIDTH * COLUMN + 2 * MARGIN), len(rows) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">',
        "<!-- Made by docs/record.py from a real session. -->",
        "<title>A session of udgram on a terminal</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="back" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
    ]
    for index, (clock, spans) in enumerate(rows):
        text = "".join(
            f'<tspan class="{style}">{html.escape(text)}</tspan>' if style else html.escape(text) for style, text in spans
        )
        y = MARGIN + (index + 0.75) * LINE
        parts.append(f'<g style="animation-delay:{clock:.1f}s"><text x="{MARGIN}" y="{y:.0f}" xml:space="preserve">{text}</text></g>')
    return "\n".join([*parts, "</svg>", ""])


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    programs = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "../target/release"))
    rows = [(clock, row) for clock, spans in lines(record(programs)) for row in wrap(spans)]
    with open(os.path.join(here, "session.svg"), "w") as file:
        file.write(draw(rows))


main()
