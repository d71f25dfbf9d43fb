# SPDX-License-Identifier: BSD-2-Clause
"""Where a destination is told to take the VM from, on the command line and later; and again after a
failure."""

import json
import os
import socket

from harness.qmp import QmpError
from harness.vmm import VmmTestCase


class Incoming(VmmTestCase):
    def setUp(self):
        super().setUp()
        self.src = self.vmm(name="src", memory="16M")
        self.src.qtest.write(0x100000, b"luggage")

    def destination(self, *args, **keywords):
        return self.vmm(*args, name="dst", memory="16M", **keywords)

    def check_arrives(self, dst, uri, stored=False):
        """stored: the source is done before the destination begins."""
        if not stored:
            self.src.cmd("migrate", uri=uri)
            self.src.wait_migration()
        dst.wait_migration()
        dst.wait_run_state("running")
        self.assertEqual(dst.qtest.read(0x100000, 7), b"luggage")
        self.assertNotIn("socket-address", dst.cmd("query-migrate"))

    def stored(self):
        path = self.folder / "stream"
        self.src.cmd("migrate", uri=f"file:{path},offset=512")
        self.src.wait_migration()
        return path

    def port_of(self, dst):
        (address,) = dst.cmd("query-migrate")["socket-address"]
        self.assertEqual(address["type"], "inet")
        self.assertNotEqual(address["port"], "0")
        return address["port"]

    def test_unix(self):
        self.check_arrives(self.destination("-incoming", f"unix:{self.folder}/in"),
                           f"unix:{self.folder}/in")

    def test_tcp_at_a_port_that_the_kernel_chooses(self):
        dst = self.destination("-incoming", "tcp:127.0.0.1:0")
        self.check_arrives(dst, f"tcp:127.0.0.1:{self.port_of(dst)}")

    def test_tcp_at_the_first_free_port_of_a_range(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            dst = self.destination("-incoming", f"tcp:127.0.0.1:{port},to={port + 100},ipv4=on")
            chosen = int(self.port_of(dst))
            self.assertGreater(chosen, port)
            self.check_arrives(dst, f"tcp:127.0.0.1:{chosen}")

    def test_socket_that_was_inherited(self):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            dst = self.destination("-incoming", f"fd:{theirs.fileno()}",
                                   pass_fds=[theirs.fileno()])
            theirs.close()
            self.src.qmp.wait_reply(
                self.src.qmp.send("getfd", fdname="mig", fds=[ours.fileno()]))
            ours.close()
            self.check_arrives(dst, "fd:mig")

    def test_file_that_was_inherited(self):
        fd = os.open(self.stored(), os.O_RDONLY)
        os.lseek(fd, 512, os.SEEK_SET)
        dst = self.destination("-incoming", f"fd:{fd}", pass_fds=[fd])
        os.close(fd)
        self.check_arrives(dst, None, stored=True)

    def test_file(self):
        dst = self.destination("-incoming", f"file:{self.stored()},offset=512")
        self.check_arrives(dst, None, stored=True)

    def test_command(self):
        dst = self.destination("-incoming", f"exec:tail -c +513 {self.stored()}")
        self.check_arrives(dst, None, stored=True)

    def test_command_of_a_channel_runs_without_a_shell(self):
        path = self.stored()
        channel = {"channel-type": "main", "addr": {
            "transport": "exec", "args": ["/usr/bin/tail", "-c", "+513", str(path)]}}
        self.check_arrives(self.destination("-incoming", json.dumps(channel)), None, stored=True)

    def test_later_is_told_once_it_runs(self):
        dst = self.destination("-incoming", "defer")
        self.assertEqual(dst.cmd("query-migrate"), {})
        self.assertEqual(dst.run_state(), "inmigrate")
        dst.cmd("migrate-incoming", uri="tcp:127.0.0.1:0")
        self.check_arrives(dst, f"tcp:127.0.0.1:{self.port_of(dst)}")

    def test_last_of_several_counts(self):
        dst = self.destination("-incoming", f"unix:{self.folder}/first",
                               "-incoming", f"unix:{self.folder}/last")
        self.assertFalse((self.folder / "first").exists())
        self.check_arrives(dst, f"unix:{self.folder}/last")

    def test_stays_paused_when_told_so_on_the_way(self):
        for number, (args, command) in enumerate(((["-S"], None), ([], "stop"))):
            with self.subTest(args=args, command=command):
                path = f"{self.folder}/in{number}"
                src = self.vmm(memory="16M")
                dst = self.vmm("-incoming", f"unix:{path}", *args, memory="16M")
                if command:
                    dst.cmd(command)
                src.cmd("migrate", uri=f"unix:{path}")
                dst.wait_migration()
                self.assertEqual(dst.run_state(), "paused")

    def test_what_can_not_be_opened_can_be_tried_again(self):
        dst = self.destination("-incoming", "defer")
        for uri in ("file:/nonexistent/f", "unix:/nonexistent/s", "tcp:192.0.2.1:0", "fd:nope",
                    "warp:1"):
            with self.subTest(uri), self.assertRaises(QmpError):
                dst.cmd("migrate-incoming", uri=uri)
            self.assertEqual(dst.run_state(), "inmigrate")
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/in")
        self.check_arrives(dst, f"unix:{self.folder}/in")

    def test_failed_load_can_be_followed_by_another(self):
        dst = self.destination("-incoming", "defer")
        dst.cmd("migrate-incoming", uri="exec:echo nonsense", exit_on_error=False)
        dst.wait_migration("failed")
        self.assertIn("not a migration stream", dst.cmd("query-migrate")["error-desc"])
        dst.cmd("migrate-incoming", uri=f"unix:{self.folder}/in")
        self.assertEqual(dst.migration_status(), "setup")
        self.check_arrives(dst, f"unix:{self.folder}/in")
        self.assertNotIn("error-desc", dst.cmd("query-migrate"))

    def test_nobody_is_let_in_when_it_has_arrived(self):
        path = f"{self.folder}/in"
        dst = self.destination("-incoming", f"unix:{path}")
        self.check_arrives(dst, f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as late, self.assertRaises(OSError):
            late.connect(path)
        with self.assertRaises(QmpError):
            dst.cmd("migrate-incoming", uri=f"unix:{path}")
