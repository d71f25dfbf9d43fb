# SPDX-License-Identifier: BSD-2-Clause
"""Guests that run: boot sectors of tests/qtest/guests, assembled when a test needs them."""

import functools
import shutil
import subprocess
from pathlib import Path

from .vmm import VMM, VmmTestCase

GUESTS = Path(__file__).resolve().parent.parent / "guests"
BOOTS = 0x600
FIRST, LAST = 256, 2304  # pages 1 MiB to 9 MiB: a round takes few milliseconds


@functools.cache
def why_no_kvm():
    """The reason, or None. It would use KVM and then fail for a file that is not there."""
    for tool in ("as", "ld"):
        if not shutil.which(tool):
            return f"no {tool} to make a guest with"
    done = subprocess.run([VMM, "-accel", "kvm", "-kernel", "/nonexistent/kernel"],
                          capture_output=True, text=True, check=False)
    return done.stderr.strip() if "-accel kvm" in done.stderr else None


def assemble(name, folder, **symbols):
    """Path of a boot sector."""
    image, middle = Path(folder) / f"{name}.img", Path(folder) / f"{name}.o"
    definitions = [word for key, value in symbols.items()
                   for word in ("--defsym", f"{key}={value}")]
    subprocess.run(["as", "--32", *definitions, "-o", middle, GUESTS / f"{name}.S"], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x7c00", "--oformat", "binary", "-o", image,
                    middle], check=True)
    return image


class KvmTestCase(VmmTestCase):
    """Its VMs run guests under KVM."""

    def setUp(self):
        super().setUp()
        reason = why_no_kvm()
        if reason:
            self.skipTest(reason)
        self.image = assemble("count", self.folder, FIRST=FIRST, LAST=LAST, ROUNDS=4)

    def guest(self, *args, image=None, **keywords):
        """One whose boot sector is the counting one, or another."""
        return self.vmm(*self.boot(image), *args, **self.keywords(keywords))

    def guests(self, *args, image=None, **keywords):
        """Source and destination, for a with statement."""
        return self.pair(*self.boot(image), *args, **self.keywords(keywords))

    def boot(self, image=None):
        return ["-drive", f"if=none,id=d0,file={image or self.image},format=raw",
                "-device", "ide-hd,drive=d0"]

    @staticmethod
    def keywords(given):
        return {"accel": "kvm", "memory": "32M", **given}

    def pages(self, vmm):
        """The counting guest's byte of each page, in order."""
        return [int(word, 16) for word in
                vmm.qtest.pipeline([f"readb {page << 12:#x}" for page in range(FIRST, LAST)])]

    def wait_counting(self, vmm):
        """Until the guest has begun another round."""
        last = (LAST - 1) << 12
        begin = vmm.qtest.readb(last)
        vmm.wait_for(lambda: vmm.qtest.readb(last) != begin, "counting")

    def assert_ordered(self, vmm):
        """`vmm` is stopped. Its pages have at most one edge, from n + 1 down to n."""
        pages = self.pages(vmm)
        edges = [(index, one, other)
                 for index, (one, other) in enumerate(zip(pages, pages[1:], strict=False))
                 if one != other]
        self.assertLessEqual(len(edges), 1, edges[:10])
        for _, one, other in edges:
            self.assertEqual(one, (other + 1) % 256, edges)
        return pages
