# SPDX-License-Identifier: BSD-2-Clause
"""Kernels that -kernel loads and KVM runs, and that go on elsewhere."""

import subprocess

from harness.kvm import GUESTS, KvmTestCase, ordered, pages
from harness.vmm import migrate

ENTERED, MAGIC, INFO = 0x600, 0x604, 0x608
FIRST, LAST = 1024, 1280  # pages 4 MiB to 5 MiB, behind the kernel
BY_MULTIBOOT = 0x2BADB002
PVH_START_INFO = 0x336EC578
MULTIBOOT_COMMAND_LINE, PVH_COMMAND_LINE = 16, 24


class Kernel(KvmTestCase):
    def assemble(self, form):
        image, middle = self.folder / f"{form}.elf", self.folder / f"{form}.o"
        symbols = {"FLAT": 0, "ELF": 0, "PVH": 0, "FIRST": FIRST, "LAST": LAST, form: 1}
        definitions = [word for key, value in symbols.items()
                       for word in ("--defsym", f"{key}={value}")]
        subprocess.run(["as", "--32", *definitions, "-o", middle, GUESTS / "kernel.S"], check=True)
        form_of_file = ["--oformat", "binary"] if form == "FLAT" else []
        subprocess.run(["ld", "-m", "elf_i386", "-n", "-Ttext", "0x100000",
                        "--section-start=.note=0x100400", *form_of_file, "-o", image,
                        middle], check=True)
        return image

    def run_kernel(self, form):
        return self.pair("-kernel", str(self.assemble(form)), "-append", "word=1", accel="kvm",
                         memory="16M")

    def wait_counting(self, vmm):
        at = (LAST - 1) << 12
        begin = vmm.qtest.readb(at)
        vmm.wait_for(lambda: vmm.qtest.readb(at) != begin, "counting")

    def check(self, form, command_line_at):
        """It was entered once, was told its command line, and counts on at the destination."""
        with self.run_kernel(form) as (src, dst):
            self.wait_counting(src)
            info = src.qtest.readl(INFO)
            text = src.qtest.readl(info + command_line_at)
            self.assertIn(b"word=1\0", src.qtest.read(text, 64))
            magic = src.qtest.readl(MAGIC), src.qtest.readl(info)
            migrate(src, dst)
            self.wait_counting(dst)
            dst.cmd("stop")
            ordered(pages(dst, FIRST, LAST))
            self.assertEqual(dst.qtest.readl(ENTERED), 1)
            return magic

    def test_flat_image_with_a_multiboot_header(self):
        magic, _ = self.check("FLAT", MULTIBOOT_COMMAND_LINE)
        self.assertEqual(magic, BY_MULTIBOOT)

    def test_elf_with_a_multiboot_header(self):
        magic, _ = self.check("ELF", MULTIBOOT_COMMAND_LINE)
        self.assertEqual(magic, BY_MULTIBOOT)

    def test_elf_with_a_pvh_note(self):
        _, start_info = self.check("PVH", PVH_COMMAND_LINE)
        self.assertEqual(start_info, PVH_START_INFO)

    def test_reset_loads_and_enters_it_again(self):
        with self.run_kernel("PVH") as (src, _):
            self.wait_counting(src)
            src.cmd("system_reset")
            src.wait_for(lambda: src.qtest.readl(ENTERED) == 2, "the second start")
            self.wait_counting(src)
