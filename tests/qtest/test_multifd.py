# SPDX-License-Identifier: BSD-2-Clause
"""RAM over channels of its own. With a real QEMU: test_qemu.py."""

import os
import socket

from harness.qmp import QmpError
from harness.vmm import VmmTestCase, device, migrate, start_migration, workload


def channels(count, *vmms):
    for vmm in vmms:
        vmm.set_capabilities("multifd")
        vmm.set_parameters(**{"multifd-channels": count})


class Multifd(VmmTestCase):
    def filled_pair(self, count=2):
        src, dst = self.enterContext(self.pair(memory="32M", backed=True, destination=["-S"]))
        src.qtest.write(0x100000, os.urandom(4 << 20))
        channels(count, src, dst)
        return src, dst

    def check_arrived(self, src, dst):
        src.wait_migration()
        dst.wait_migration()
        self.assertEqual((src.run_state(), dst.run_state()), ("postmigrate", "paused"))
        self.assert_same_memory(src, dst)

    def assert_refused(self, description, vmm, command, **arguments):
        with self.assertRaises(QmpError) as refusal:
            vmm.cmd(command, arguments)
        self.assertEqual(refusal.exception.desc, description)

    def test_unix(self):
        for count in (1, 3, 16):
            src, dst = self.filled_pair(count)
            start_migration(src, dst, f"unix:{self.folder}/with-{count}")
            self.check_arrived(src, dst)

    def test_tcp_by_channels(self):
        src, dst = self.filled_pair()
        dst.cmd("migrate-incoming", uri="tcp:127.0.0.1:0")
        (address,) = dst.cmd("query-migrate")["socket-address"]
        src.cmd("migrate", channels=[{"channel-type": "main", "addr": {
            "transport": "socket", "type": "inet", "host": "127.0.0.1",
            "port": address["port"]}}])
        self.check_arrived(src, dst)

    def test_each_zero_page_detection(self):
        for detection in ("none", "legacy", "multifd"):
            src, dst = self.filled_pair()
            src.set_parameters(**{"zero-page-detection": detection})
            start_migration(src, dst, f"unix:{self.folder}/{detection}")
            self.check_arrived(src, dst)
            ram = src.cmd("query-migrate")["ram"]
            self.assertEqual(ram["duplicate"] == 0, detection == "none")
            self.assertGreaterEqual(ram["multifd-bytes"], ram["normal"] * 4096)
            self.assertEqual(ram["transferred"], sum(
                ram[f"{way}-bytes"] for way in ("multifd", "precopy", "downtime")))

    def test_guest_that_writes_while_it_moves(self):
        self.check_guest_that_writes()

    def test_guest_that_writes_while_it_moves_compressed(self):
        for method in ("zlib", "zstd"):
            with self.subTest(method):
                self.check_guest_that_writes(**{"multifd-compression": method})

    def check_guest_that_writes(self, **parameters):
        src, dst = self.enterContext(self.pair(*workload("8M"), memory="32M", backed=True))
        channels(4, src, dst)
        for vmm in (src, dst):
            vmm.set_parameters(**parameters)
        src.set_capabilities("return-path")
        dst.set_capabilities("return-path")
        migrate(src, dst)
        self.assert_workload_correct(dst)

    def test_compressed(self):
        for method in ("zlib", "zstd"):
            src, dst = self.filled_pair()
            for vmm in (src, dst):
                vmm.set_parameters(**{"multifd-compression": method})
            self.check_small(src, dst, method)

    def check_small(self, src, dst, method):
        src.qtest.write(0x800000, b"four" * (2 << 20))  # 8 MiB, of which little goes out
        start_migration(src, dst, f"unix:{self.folder}/{method}")
        self.check_arrived(src, dst)
        ram = src.cmd("query-migrate")["ram"]
        self.assertGreater(ram["transferred"], 4 << 20)
        self.assertLess(ram["transferred"], 6 << 20)
        self.assertGreaterEqual(ram["normal"] * 4096, 12 << 20)

    def test_sides_that_compress_differently_leave_the_vm_at_the_source(self):
        src, dst = self.filled_pair()
        src.set_capabilities("return-path")
        dst.set_capabilities("return-path")
        src.set_parameters(**{"multifd-compression": "zstd"})
        dst.set_parameters(**{"multifd-compression": "zlib"})
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("multifd-compression is zlib", src.cmd("query-migrate")["error-desc"])

    def test_no_thread_or_descriptor_is_left(self):
        src, dst = self.filled_pair(4)
        before = [src.resources(), dst.resources()]
        start_migration(src, dst)
        self.check_arrived(src, dst)
        for vmm, was in zip((src, dst), before):
            vmm.wait_resources(was)

    def test_fewer_channels_at_the_source_end_by_the_time_limit(self):
        src, dst = self.filled_pair()
        src.set_parameters(**{"multifd-channels": 1, "x-peer-timeout": 1000})
        dst.set_parameters(**{"x-peer-timeout": 1000})
        src.set_capabilities("return-path")
        uri = start_migration(src, dst)
        src.wait_migration("failed")
        src.wait_run_state("running")
        dst.wait_for(lambda: "only 2 of 3 connections came" in dst.log(), "the reason in the log")
        # It waits on, and the next attempt has what it takes.
        src.set_parameters(**{"multifd-channels": 2})
        src.cmd("migrate", uri=uri)
        self.check_arrived(src, dst)

    def test_a_connection_that_is_none_of_them_is_closed(self):
        src, dst = self.filled_pair()
        uri = f"unix:{self.folder}/strangers"
        dst.cmd("migrate-incoming", uri=uri)
        stranger = socket.socket(socket.AF_UNIX)
        self.addCleanup(stranger.close)
        stranger.connect(uri.removeprefix("unix:"))
        stranger.sendall(b"GET / HTTP/1.1\r\n")
        try:
            self.assertEqual(stranger.recv(1), b"")
        except ConnectionResetError:
            pass  # nobody read the rest of what it said
        src.cmd("migrate", uri=uri)
        self.check_arrived(src, dst)

    def test_transports_without_more_channels_are_refused(self):
        src, dst = self.filled_pair()
        error = "Migration requires multi-channel URIs (e.g. tcp)"
        for uri in ("exec:cat", f"file:{self.folder}/file", "fd:some"):
            for vmm, command in ((src, "migrate"), (dst, "migrate-incoming")):
                self.assert_refused(error, vmm, command, uri=uri)

    def test_capability_comes_before_the_listener(self):
        _, dst = self.enterContext(self.pair(memory="16M"))
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/early")
        self.assert_refused("Multifd must be set before incoming starts", dst,
                            "migrate-set-capabilities",
                            capabilities=[{"capability": "multifd", "state": True}])


class DeviceState(VmmTestCase):
    """Of devices, over the page channels."""

    SLOTS = (3, 4, 5)

    def device_pair(self, **properties):
        words = [word for slot in self.SLOTS
                 for word in device("vfio-pci-soft", id=f"d{slot}", addr=slot, x_state_size="2M",
                                    **properties)]
        src, dst = self.enterContext(self.pair(*words, memory="32M", backed=True,
                                               destination=["-S"]))
        for slot in self.SLOTS:
            src.test_device(slot).setup().fill(slot)
        return src, dst

    def check_moved(self, src, dst):
        start_migration(src, dst)
        src.wait_migration()
        dst.wait_migration()
        self.assert_same_memory(src, dst)
        for slot in self.SLOTS:
            there, moved = dst.test_device(slot), src.test_device(slot)
            for one in (there, moved):
                one.bars = {0: (0xE0000000 + (slot << 20), 0x4000)}
            self.assertEqual(there.digest(), moved.digest())

    def test_goes_over_the_page_channels(self):
        for number, pre_copy in enumerate(("on", "off")):
            src, dst = self.device_pair(x_pre_copy=pre_copy)
            for vmm in (src, dst):
                channels(2 + number, vmm)
                vmm.set_capabilities("return-path")
            self.check_moved(src, dst)
            self.assertGreaterEqual(src.cmd("query-migrate")["vfio"]["transferred"], 3 * (2 << 20))

    def test_goes_over_the_main_channel_beside_the_pages(self):
        src, dst = self.device_pair(x_migration_multifd_transfer="off")
        for vmm in (src, dst):
            channels(2, vmm)
        self.check_moved(src, dst)

    def test_is_switched_while_the_vm_runs(self):
        src, dst = self.device_pair()
        for vmm in (src, dst):
            channels(2, vmm)
            for slot in self.SLOTS:
                vmm.cmd("qom-set", path=f"d{slot}", property="x-migration-multifd-transfer",
                        value="off")
        self.check_moved(src, dst)

    def test_both_sides_must_agree(self):
        src, dst = self.device_pair()
        for vmm in (src, dst):
            channels(2, vmm)
            vmm.set_capabilities("return-path")
        dst.cmd("qom-set", path="d4", property="x-migration-multifd-transfer", value="off")
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("x-migration-multifd-transfer must be the same on both sides",
                      src.cmd("query-migrate")["error-desc"])

    def test_goes_over_the_main_channel_beside_compressed_pages(self):
        src, dst = self.device_pair()
        for vmm in (src, dst):
            channels(2, vmm)
            vmm.set_parameters(**{"multifd-compression": "zstd"})
        self.check_moved(src, dst)

    def test_on_with_compression_is_refused_at_the_setup(self):
        src, dst = self.device_pair(x_migration_multifd_transfer="on")
        for vmm in (src, dst):
            channels(2, vmm)
            vmm.set_parameters(**{"multifd-compression": "zlib"})
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("multifd without compression (multifd-compression=none)",
                      src.cmd("query-migrate")["error-desc"])

    def test_on_without_the_channels_is_refused_at_the_setup(self):
        src, dst = self.device_pair(x_migration_multifd_transfer="on")
        start_migration(src, dst, exit_on_error=False)
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("x-migration-multifd-transfer=on needs the capability multifd",
                      src.cmd("query-migrate")["error-desc"])
