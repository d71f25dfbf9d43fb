# SPDX-License-Identifier: BSD-2-Clause
"""Commands that the documentation shows, taken out of it and run as they stand there.

A block counts that is marked: in .rst ``.. code-block:: sh`` with ``:class: tested``, in .md an indented
block behind ``<!-- tested -->``.
"""

import os
import re
import subprocess
import textwrap
import time

from .qmp import PATIENCE
from .vmm import BUILD

PROGRAMS = ("system/vmm", "tools/ferryctl", "tools/ferry-stream", "tools/ferry-memcmp")
RST_MARK = re.compile(r"^\.\. code-block:: sh\n +:class: tested\n\n((?: +\S.*\n|\n)+)", re.MULTILINE)
MD_MARK = re.compile(r"^<!-- tested -->\n\n((?: {4}\S.*\n| {5,}.*\n)+)", re.MULTILINE)
LISTENING = re.compile(r"-incoming unix:(\S+)")


def blocks(path):
    """The marked blocks of a file, each as a list of commands; lines that go on are joined."""
    mark = MD_MARK if path.suffix == ".md" else RST_MARK
    found = []
    for block in mark.findall(path.read_text(encoding="utf-8")):
        text = textwrap.dedent(block).replace("\\\n", " ")
        found.append([line for line in text.splitlines() if line.strip()])
    return found


class Shell:
    """Runs commands one after the other in a folder, with the programs of the build in PATH."""

    def __init__(self, folder):
        self.folder = folder
        self.environment = dict(os.environ)
        self.environment["PATH"] = os.pathsep.join(
            [str(BUILD / program) for program in PROGRAMS] + [os.environ["PATH"]])
        self.background = []

    def _start(self, command, **more):
        return subprocess.Popen(["bash", "-c", command], cwd=self.folder, env=self.environment,
                                stdin=subprocess.DEVNULL, text=True, **more)

    def run(self, command):
        """A command with & at its end is started; ferryctl waits for its monitor by itself."""
        if command.rstrip().endswith("&"):
            command = "exec " + command.rstrip().removesuffix("&")
            process = self._start(command)
            self.background.append(process)
            for paths in LISTENING.findall(command):
                self._wait_listening(process, command, paths)
            return
        with self._start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            output, _ = process.communicate(timeout=PATIENCE)
        if process.returncode != 0:
            raise AssertionError(f"{command}: exit status {process.returncode}\n{output}")

    def _wait_listening(self, process, command, path):
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / path).exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{command}: does not listen at {path}")
            time.sleep(0.01)

    def close(self):
        for process in self.background:
            process.kill()
            process.wait(PATIENCE)
