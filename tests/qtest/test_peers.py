# SPDX-License-Identifier: BSD-2-Clause
"""Peers that misbehave: the source goes on, a destination stays usable."""

import re

from harness.peer import Server, connect, send_stream
from harness.soft import hold, release, soft, wait_held
from harness.vmm import VmmTestCase, migrate, start_migration, workload


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
            self.check_source_goes_on(src, "the destination was lost")

    def test_source_fails_when_the_peer_says_nothing(self):
        src = self.source()
        src.set_parameters(x_peer_timeout=1000)
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            self.check_source_goes_on(src, "the destination has been silent", "x-peer-timeout")

    def test_source_fails_when_the_peer_does_not_read(self):
        src = self.vmm(memory="32M")
        src.qtest.write(0x100000, bytes(range(1, 256)) * 65536)
        src.set_parameters(x_peer_timeout=1000)
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept()
            self.check_source_goes_on(src, "the destination has been silent")

    def test_source_fails_when_the_return_path_holds_garbage(self):
        src = self.source()
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            peer.sock.sendall(b"\xde\xad\xbe\xef" * 8)
            self.check_source_goes_on(src, "destination", "0xdead")

    def test_source_fails_when_the_peer_reports_failure(self):
        src = self.source()
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background()
            peer.sock.sendall(b"\x00\x01\x00\x04\x00\x00\x00\x01")  # SHUT 1
            self.check_source_goes_on(src, "the destination failed")

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
            self.check_source_goes_on(src, "destination", "early")

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
        before = dst.resources()
        for part in range(1, 8):
            send_stream(self.wait_listening(dst), data[:len(data) * part // 8])
            self.check_destination_failed(dst)
            dst.wait_resources(before)

    def test_destination_gives_up_a_silent_source(self):
        dst = self.vmm("-incoming", "defer", memory="16M")
        dst.set_parameters(x_peer_timeout=1000)
        with connect(self.wait_listening(dst)):
            self.check_destination_failed(dst, "the source has been silent", "x-peer-timeout")

    def test_destination_ends_after_a_bad_stream_unless_told_otherwise(self):
        dst = self.vmm("-incoming", f"unix:{self.folder}/in", memory="16M")
        send_stream(f"{self.folder}/in", b"nonsense")
        self.assertEqual(dst.wait_exit(), 1)
        self.assertIn("not a migration stream", dst.log())

    # Two VMs that do not match.

    def check_mismatch(self, src, dst, *words, at_source=()):
        """Fails for the reason in these words; at_source: what the source knows of it."""
        start_migration(src, dst, exit_on_error=False)
        self.check_source_goes_on(src, "the destination failed: ", *at_source)
        self.check_destination_failed(dst, *words)

    def test_unknown_device_is_refused_by_name(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm("-incoming", "defer", memory="16M", name="dst")
        self.check_mismatch(src, dst, "0000:00:03.0/vfio", at_source=["0000:00:03.0/vfio"])

    def test_device_in_another_slot_is_refused_and_a_second_destination_taken(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm(soft(slot=5), "-incoming", "defer", memory="16M", name="dst")
        self.check_mismatch(src, dst, "0000:00:03.0/vfio", at_source=["0000:00:03.0/vfio"])
        right = self.vmm(soft(), "-incoming", "defer", memory="16M", name="right")
        migrate(src, right)
        self.assertEqual(right.run_state(), "running")

    def test_other_memory_size_is_refused(self):
        src = self.vmm(soft(), memory="16M", name="src")
        dst = self.vmm(soft(), "-incoming", "defer", memory="32M", name="dst")
        words = ["pc.ram", str(16 << 20), str(32 << 20)]
        self.check_mismatch(src, dst, *words, at_source=words)

    def test_smaller_device_state_is_refused(self):
        src = self.vmm(soft(x_state_size="1M"), memory="16M", name="src")
        dst = self.vmm(soft(x_state_size="2M"), "-incoming", "defer", memory="16M", name="dst")
        self.check_mismatch(src, dst, "device d0", at_source=["device d0"])

    def check_config_size(self, at_source, at_destination):
        src = self.vmm(soft(x_pcie=at_source), memory="16M", name="src")
        dst = self.vmm(soft(x_pcie=at_destination), "-incoming", "defer", memory="16M", name="dst")
        hold(src, "read state")  # no pause before that, however slow the destination is
        start_migration(src, dst, exit_on_error=False)
        self.check_destination_failed(dst, "device d0")
        self.assertEqual(src.run_state(), "running")
        release(src)
        self.check_source_goes_on(src, "the destination failed: ")
        sizes = []
        for vmm in (src, dst):
            why = vmm.cmd("query-migrate")["error-desc"]
            found = re.search(r"device d0: .* (\d+) bytes at the source and (\d+) here", why)
            self.assertTrue(found, why)
            sizes.append([int(size) for size in found.groups()])
        self.assertEqual(sizes[0], sizes[1])
        space = {True: 4096, False: 256}
        self.assertEqual(sizes[0][0] - sizes[0][1], space[at_source] - space[at_destination])
        self.assertNotIn("STOP", src.events())
        right = self.vmm(soft(x_pcie=at_source), "-incoming", "defer", memory="16M", name="right")
        migrate(src, right)
        self.assertEqual((src.run_state(), right.run_state()), ("postmigrate", "running"))

    def test_larger_configuration_space_is_refused_before_the_pause(self):
        self.check_config_size(True, False)

    def test_smaller_configuration_space_is_refused_before_the_pause(self):
        self.check_config_size(False, True)


class OtherMachine(VmmTestCase):
    """The machine's type stands before everything else in the stream, also before the return path is
    opened. The source hears of the refusal whether it asked for an answer or not."""

    def two(self, *args):
        src = self.vmm(*args, memory="16M", name="src")
        dst = self.vmm("-incoming", "defer", memory="16M", machine="none", name="dst")
        return src, dst

    def check_refused(self, dst):
        dst.wait_migration("failed")
        self.assertEqual(dst.run_state(), "inmigrate")
        why = dst.cmd("query-migrate")["error-desc"]
        self.assertIn("q35-1.0'", why)
        self.assertIn("'none'", why)

    def check_source_goes_on(self, src, *args):
        src.wait_migration("failed")
        src.wait_run_state("running")
        self.assertIn("destination", src.cmd("query-migrate")["error-desc"])
        right = self.vmm(*args, "-incoming", "defer", memory="16M", name="right")
        src.set_parameters(max_bandwidth=0, avail_switchover_bandwidth=1 << 30)
        migrate(src, right)
        self.assertEqual((src.run_state(), right.run_state()), ("postmigrate", "running"))

    def check_answer_is_awaited(self, src, dst, *args):
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/in", exit_on_error=False)
        with dst.frozen():
            src.cmd("migrate", uri=f"unix:{self.folder}/in")
            src.wait_migration("setup", "active")
        self.check_refused(dst)
        src.wait_migration("failed")
        self.assertNotIn("STOP", src.events())
        self.check_source_goes_on(src, *args)

    def test_source_with_return_path_goes_on(self):
        src, dst = self.two()
        src.set_capabilities("return-path")
        self.check_answer_is_awaited(src, dst)

    def test_source_with_a_vfio_device_goes_on(self):
        self.check_answer_is_awaited(*self.two(soft()), soft())

    def test_source_without_return_path_that_still_sends_goes_on(self):
        load = workload("8M", pages_per_second=2000)
        src, dst = self.two(load)
        src.set_parameters(max_bandwidth=1 << 16, avail_switchover_bandwidth=1)
        start_migration(src, dst, exit_on_error=False)
        self.check_refused(dst)
        self.check_source_goes_on(src, load)

    def test_source_without_return_path_that_has_sent_all_goes_on(self):
        src, dst = self.two()
        start_migration(src, dst, exit_on_error=False)
        self.check_refused(dst)
        self.check_source_goes_on(src)

    def test_source_without_return_path_says_that_nobody_confirmed(self):
        src = self.vmm(memory="16M")
        with Server(self.folder) as peer:
            src.cmd("migrate", uri=peer.uri)
            peer.accept().read_in_background().wait_end()
            src.wait_migration("completed")
        self.assertIn("nobody confirms that it runs the VM", src.log())
        self.assertEqual(src.run_state(), "postmigrate")
        src.cmd("cont")
        self.assertEqual(src.run_state(), "running")


class RefusalsWithoutReturnPath(VmmTestCase):
    """Nobody asked the destination, no device asks for an answer, and all fits into the socket."""

    def check(self, src, dst, *words):
        start_migration(src, dst, exit_on_error=False)
        for vmm in (dst, src):
            vmm.wait_migration("failed")
            why = vmm.cmd("query-migrate")["error-desc"]
            for word in words:
                self.assertIn(word, why)
        self.assertEqual(dst.run_state(), "inmigrate")
        src.wait_run_state("running")

    def test_other_size_of_ram(self):
        self.check(self.vmm(memory="16M", name="src"),
                   self.vmm("-incoming", "defer", memory="32M", name="dst"), "pc.ram")

    def test_section_that_the_destination_does_not_have(self):
        load = workload("1M", pages_per_second=1)
        self.check(self.vmm(load, memory="16M", name="src"),
                   self.vmm("-incoming", "defer", memory="16M", name="dst"), "workload")
