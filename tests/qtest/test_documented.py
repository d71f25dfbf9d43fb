# SPDX-License-Identifier: BSD-2-Clause
"""What the documentation says can be typed can be typed."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness.documented import Shell, blocks
from harness.vmm import ROOT

MANUALS = sorted(path for path in (ROOT / "docs/tools").glob("*.rst") if path.stem != "index")
README = ROOT / "README.md"
OPTION = re.compile(r"^    (scripts/\S+).*?(?:(--[a-z-]+) .*)?$", re.MULTILINE)


class Documented(unittest.TestCase):
    def check_block(self, path, number):
        commands = blocks(path)[number]
        folder = Path(tempfile.mkdtemp(prefix="ferry-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        shell = Shell(folder)
        self.addCleanup(shell.close)
        for command in commands:
            shell.run(command)

    def test_every_manual_has_commands_that_are_tried(self):
        for path in (README, *MANUALS):
            self.assertTrue(blocks(path), f"{path.name} has no block marked as tested")

    def test_the_scripts_of_the_readme_exist_with_the_options_it_names(self):
        named = OPTION.findall(README.read_text(encoding="utf-8"))
        self.assertGreaterEqual(len(named), 2)
        for script, option in named:
            self.assertTrue(os.access(ROOT / script, os.X_OK), script)
            if option:
                said = subprocess.run([ROOT / script, "--help"], capture_output=True, text=True,
                                      check=True).stdout
                self.assertIn(option, said, script)


def _add_tests():
    def add(path, number):
        def test(self):
            self.check_block(path, number)
        name = re.sub(r"\W", "_", path.stem.lower())
        setattr(Documented, f"test_{name}_example_{number + 1}", test)
    for path in (README, *MANUALS):
        for number in range(len(blocks(path))):
            add(path, number)


_add_tests()
