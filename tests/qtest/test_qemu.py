# SPDX-License-Identifier: BSD-2-Clause
"""A VM of RAM alone goes to a real QEMU and comes back."""

import random
import shutil
import subprocess

from harness.qmp import Qmp
from harness.vmm import VmmTestCase, options

QEMU = shutil.which("qemu-system-x86_64")
SIZE = 16 << 20
# QEMU 7.2 does not know this command.
OLD = ("-global", "migration.send-switchover-start=off")
# It brings its page channels in line after each section, and has zero pages on the main one.
AS_QEMU_7 = (*OLD, "-global", "migration.multifd-flush-after-each-section=on",
             "-global", "migration.zero-page-detection=legacy")


class Qemu(VmmTestCase):
    def setUp(self):
        super().setUp()
        if QEMU is None:
            self.skipTest("no qemu-system-x86_64 (package qemu-system-x86)")

    def qemu(self, *args, block="ram0"):
        """QMP of a QEMU whose RAM is the file self.memory."""
        path, self.memory = self.folder / "qemu.qmp", self.folder / "qemu.ram"
        backend = options("-object", "memory-backend-file", id=block, size="16M",
                          mem_path=self.memory, share=True)
        process = subprocess.Popen(
            [QEMU, "-machine", f"none,memory-backend={block}", *backend, "-nodefaults", "-display",
             "none", "-qmp", f"unix:{path},server=on,wait=off", *args])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        src = self.vmms[0]
        src.wait_for(path.exists, "QEMU's QMP socket")

        def connect():
            try:
                return Qmp.connect(str(path))
            except ConnectionRefusedError:
                return None
        found = []
        src.wait_for(lambda: found.append(connect()) or found[-1], "QEMU's QMP")
        return found[-1]

    def wait_completed(self, qmp):
        self.vmms[0].wait_for(
            lambda: qmp.cmd("query-migrate").get("status") == "completed", "QEMU has completed")

    def content(self):
        return self.memory.read_bytes()

    def set_up_qemu(self, qemu, capabilities, parameters):
        qemu.cmd("migrate-set-capabilities", {"capabilities": [
            {"capability": name, "state": True} for name in capabilities]})
        qemu.cmd("migrate-set-parameters", parameters)

    def check_there_and_back(self, *capabilities, old=OLD, **parameters):
        parameters = {name.replace("_", "-"): value for name, value in parameters.items()}
        src = self.vmm(*old, machine="none", memory="16M", backed=True, name="src")
        src.qtest.write(0x12000, bytes(range(256)) * 4096)
        src.qtest.write(0x200000, random.Random(1).randbytes(1 << 20))
        src.qtest.writeb(SIZE - 1, 0x5A)
        qemu = self.qemu("-incoming", "defer")
        self.set_up_qemu(qemu, capabilities, parameters)
        qemu.cmd("migrate-incoming", {"uri": f"unix:{self.folder}/there"})
        src.set_capabilities(*capabilities)
        src.set_parameters(**parameters)
        src.cmd("migrate", uri=f"unix:{self.folder}/there")
        src.wait_migration("completed")
        self.wait_completed(qemu)
        self.assertEqual(qemu.cmd("query-status")["status"], "running")
        self.assertEqual(self.content(), src.memory_path.read_bytes())

        back = self.vmm(*old, "-incoming", "defer", machine="none", memory="16M", backed=True,
                        name="back")
        back.set_capabilities(*capabilities)
        back.set_parameters(**parameters)
        back.cmd("migrate-incoming", uri=f"unix:{self.folder}/back")
        qemu.cmd("migrate", {"uri": f"unix:{self.folder}/back"})
        self.wait_completed(qemu)
        back.wait_run_state("running")
        self.assertEqual(back.memory_path.read_bytes(), src.memory_path.read_bytes())
        qemu.cmd("quit")

    def test_there_and_back(self):
        self.check_there_and_back()

    def test_there_and_back_with_return_path(self):
        self.check_there_and_back("return-path")

    def test_there_and_back_over_a_page_channel(self):
        self.check_there_and_back("multifd", old=AS_QEMU_7, multifd_channels=1)

    def test_there_and_back_over_three_page_channels_with_return_path(self):
        self.check_there_and_back("multifd", "return-path", old=AS_QEMU_7, multifd_channels=3)

    def check_compressed(self, method, level):
        self.check_there_and_back("multifd", "return-path", old=AS_QEMU_7, multifd_channels=2,
                                  multifd_compression=method,
                                  **{f"multifd_{method}_level": level})

    def test_there_and_back_by_zlib(self):
        self.check_compressed("zlib", 1)

    def test_there_and_back_by_zlib_that_only_stores(self):
        self.check_compressed("zlib", 0)

    def test_there_and_back_by_best_zlib(self):
        self.check_compressed("zlib", 9)

    def test_there_and_back_by_zstd(self):
        self.check_compressed("zstd", 1)

    def test_there_and_back_by_best_zstd(self):
        self.check_compressed("zstd", 20)

    def test_stopped_vm_arrives_stopped(self):
        src = self.vmm(*OLD, machine="none", memory="16M", backed=True, name="src")
        src.cmd("stop")
        qemu = self.qemu("-incoming", f"unix:{self.folder}/there")
        src.set_capabilities("return-path")
        src.cmd("migrate", uri=f"unix:{self.folder}/there")
        src.wait_migration("completed")
        self.wait_completed(qemu)
        self.assertEqual(qemu.cmd("query-status")["status"], "paused")

    def test_other_block_name_is_refused_and_the_vm_stays(self):
        src = self.vmm(*OLD, machine="none", memory="16M", backed=True, name="src")
        self.qemu("-incoming", f"unix:{self.folder}/there", block="other")
        src.set_capabilities("return-path")
        src.cmd("migrate", uri=f"unix:{self.folder}/there")
        src.wait_migration("failed")
        src.wait_run_state("running")
