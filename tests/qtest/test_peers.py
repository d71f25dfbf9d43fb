# SPDX-License-Identifier: BSD-2-Clause
"""Peers that misbehave: the source goes on, a destination stays usable."""

from harness.peer import Server, connect, send_stream
from harness.soft import hold, release, soft, wait_held
from harness.vmm import VmmTestCase, migrate, start_migration


class Peers(VmmTestCase):
    def check_source_goes_on(self, src, *words):
        src.wait_migration("failed")
        src.wait_run_state("running")
        why = src.cmd("query-migrate")["error-desc"]
        for word in words:
            self.assertIn(word, why)

    def check_destination_failed(self, dst, *words):
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        why = dst.cmd("query-migrate")["error-desc"]
        for word in words:
            self.assertIn(word, why)

    def wait_listening(self, dst):
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/in", exit_on_error=False)
        return f"{self.folder}/in"

    def record(self, *args, **keywords):
        """The stream of a VM with these options, as bytes."""
        src = self.vmm(*args, name="recorded", **keywords)
        path = self.folder / "stream"
        src.cmd("migrate", uri=f"file:{path}")
        src.wait_migration()
        src.quit()
        return path.read_bytes()

    # Seen from the source.

    def source(self):
        return self.vmm(soft(), memory="16M")

    def test_source_fails_when_nobody_listens(self):
        src = self.source()
        src.cmd("migrate", uri=f"unix:{self.folder}/nobody")
        self.check_source_goes_on(src, "nobody")

    def test_source_fails_when_the_peer_closes_at_once(self):
        src = self.source()
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().close()
            self.check_source_goes_on(src)

    def test_source_fails_when_the_peer_says_nothing(self):
        src = self.source()
        src.set_parameters(x_peer_timeout=1000)
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            self.check_source_goes_on(src, "silent", "x-peer-timeout")

    def test_source_fails_when_the_peer_does_not_read(self):
        src = self.vmm(memory="32M")
        src.qtest.write(0x100000, bytes(range(1, 256)) * 65536)
        src.set_parameters(x_peer_timeout=1000)
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept()
            self.check_source_goes_on(src, "silent")

    def test_source_fails_when_the_return_path_holds_garbage(self):
        src = self.source()
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            peer.sock.sendall(b"\xde\xad\xbe\xef" * 8)
            self.check_source_goes_on(src)

    def test_source_fails_when_the_peer_reports_failure(self):
        src = self.source()
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            peer.sock.sendall(b"\x00\x01\x00\x04\x00\x00\x00\x01")  # SHUT 1
            self.check_source_goes_on(src)

    def test_source_does_not_take_an_early_success_for_one(self):
        src = self.source()
        hold(src, "read state")
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            peer.sock.sendall(b"\x00\x02\x00\x04\x46\x45\x00\x00")  # PONG to the hello, as QEMU's
            wait_held(src, "read state")
            peer.sock.sendall(b"\x00\x01\x00\x04\x00\x00\x00\x00")  # SHUT 0
            peer.sock.close()
            release(src)
            self.check_source_goes_on(src)

    # Seen from the destination.

    def test_destination_survives_bad_streams_and_then_loads_a_good_one(self):
        data = self.record(soft(), memory="16M")
        dst = self.vmm(soft(), "-incoming", "defer", memory="16M")
        size = len(data)
        bad = [b"", b"GET / HTTP/1.0\r\n\r\n", bytes(4096), b"\xff" * 4096,
               data[:4], data[:8], data[:20], data[:200], data[:size // 4], data[:size // 2],
               data[:size * 3 // 4],
               data[:size // 2] + b"\x55" + data[size // 2 + 1:]]
        for number, stream in enumerate(bad):
            with self.subTest(number=number, size=len(stream)):
                send_stream(self.wait_listening(dst), stream)
                self.check_destination_failed(dst)
        send_stream(self.wait_listening(dst), data)
        dst.wait_migration()
        dst.wait_run_state("running")

    def test_nothing_is_left_after_bad_streams(self):
        data = self.record(soft(), memory="16M")
        dst = self.vmm(soft(), "-incoming", "defer", memory="16M")
        before = None
        for _ in range(4):
            send_stream(self.wait_listening(dst), data[:len(data) // 2])
            self.check_destination_failed(dst)
            before = before or dst.resources()
        dst.wait_for(lambda: dst.resources() == before, "same descriptors and threads")

    def test_destination_gives_up_a_silent_source(self):
        dst = self.vmm("-incoming", "defer", memory="16M")
        dst.set_parameters(x_peer_timeout=1000)
        with connect(self.wait_listening(dst)):
            self.check_destination_failed(dst, "silent", "x-peer-timeout")

    def test_destination_ends_after_a_bad_stream_unless_told_otherwise(self):
        dst = self.vmm("-incoming", f"unix:{self.folder}/in", memory="16M")
        send_stream(f"{self.folder}/in", b"nonsense")
        self.assertEqual(dst.wait_exit(), 1)
        self.assertIn("not a migration stream", dst.log())

    # Two VMs that do not match.

    def check_mismatch(self, src, dst, *words):
        start_migration(src, dst, exit_on_error=False)
        self.check_source_goes_on(src)
        self.check_destination_failed(dst, *words)
        return src.cmd("query-migrate")["error-desc"]

    def test_unknown_device_is_refused_by_name(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm("-incoming", "defer", memory="16M", name="dst")
        why = self.check_mismatch(src, dst, "0000:00:03.0/vfio")
        self.assertIn("0000:00:03.0/vfio", why)

    def test_device_in_another_slot_is_refused_and_a_second_destination_taken(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm(soft(slot=5), "-incoming", "defer", memory="16M", name="dst")
        self.check_mismatch(src, dst, "0000:00:03.0/vfio")
        right = self.vmm(soft(), "-incoming", "defer", memory="16M", name="right")
        migrate(src, right)
        self.assertEqual(right.run_state(), "running")

    def test_other_memory_size_is_refused(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm(soft(), "-incoming", "defer", memory="32M", name="dst")
        self.check_mismatch(src, dst, "ram")

    def test_other_machine_is_refused(self):
        src = self.vmm(memory="16M", name="src")
        dst = self.vmm("-incoming", "defer", memory="16M", machine="none", name="dst")
        start_migration(src, dst, exit_on_error=False)
        self.check_destination_failed(dst, "q35", "none")
        src.wait_for(lambda: src.migration_status() in ("failed", "completed"), "an end")

    def test_other_machine_is_refused_and_a_source_with_return_path_goes_on(self):
        src = self.vmm(memory="16M", name="src")
        dst = self.vmm("-incoming", "defer", memory="16M", machine="none", name="dst")
        src.set_capabilities("return-path")
        self.check_mismatch(src, dst, "q35", "none")

    def test_smaller_device_state_is_refused(self):
        src = self.vmm(soft(x_state_size="1M"), memory="16M", name="src")
        dst = self.vmm(soft(x_state_size="2M"), "-incoming", "defer", memory="16M", name="dst")
        why = self.check_mismatch(src, dst, "d0")
        self.assertIn("d0", why)
