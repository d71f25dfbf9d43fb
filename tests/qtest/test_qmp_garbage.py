# SPDX-License-Identifier: BSD-2-Clause
"""What no client should send: it is answered or refused, costs a bounded amount of memory, and the
next request is served as if nothing had been."""

import collections
import contextlib
import json
import random
import re
import select
import socket
import time
import unittest
from pathlib import Path

from harness.qmp import PATIENCE
from harness.vmm import VmmTestCase

MIB = 1 << 20
GROWTH_KIB = 64 * 1024  # several times what one client may have waiting, in and out


class Raw:
    """A client that sends bytes and reads lines."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)
        self.sock.setblocking(False)
        self.part = b""  # of a line
        self.lines = collections.deque()
        self.greeting = self.line()
        self.send(b'{"execute": "qmp_capabilities"}')
        self.line()

    def close(self):
        self.sock.close()

    def send(self, data):
        """All of it, while what comes back is collected: nobody may block the other."""
        deadline = time.monotonic() + PATIENCE
        rest = memoryview(data)
        while rest:
            self._wait(deadline, [self.sock])
            try:
                rest = rest[self.sock.send(rest):]
            except BlockingIOError:
                pass

    def stuff(self, data):
        """As much of it, again and again, as fits without reading; returns how often it fitted."""
        times = 0
        while True:
            try:
                if self.sock.send(data) < len(data):
                    return times
            except BlockingIOError:
                return times
            times += 1

    def line(self):
        deadline = time.monotonic() + PATIENCE
        while not self.lines:
            self._wait(deadline, [])
        return json.loads(self.lines.popleft())

    def lines_until(self, wanted):
        """Reads up to the message whose id is wanted, and returns that."""
        message = self.line()
        while message.get("id") != wanted:
            message = self.line()
        return message

    def _wait(self, deadline, writers):
        readable, writable, _ = select.select([self.sock], writers, [],
                                              max(0, deadline - time.monotonic()))
        if not readable and not writable:
            raise TimeoutError("the monitor neither reads nor answers")
        if readable:
            data = self.sock.recv(1 << 16)
            if not data:
                raise ConnectionError("the monitor hung up")
            *lines, self.part = (self.part + data).split(b"\n")
            self.lines.extend(lines)


def rss_kib(vmm):
    text = Path(f"/proc/{vmm.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1])


# Input, and what the one answer to it says.
ANSWERS = [
    ("{]", "JSON parse error"),
    ("{'execute' 'x'}", "JSON parse error, missing : in object pair"),
    ("{'execute': frob}", "JSON parse error, invalid keyword"),
    ("{'a': 1, 'a': 2}", "JSON parse error, duplicate key"),
    ("[]", "QMP input must be a JSON object"),
    ("7 ", "QMP input must be a JSON object"),
    ("null\n", "QMP input must be a JSON object"),
    ("'text'", "QMP input must be a JSON object"),
    ("{}", "QMP input lacks member 'execute'"),
    ("{'execute': 7}", "QMP input member 'execute' must be a string"),
    ("{'execute': 'stop', 'arguments': []}", "QMP input member 'arguments' must be an object"),
    ("{'execute': 'stop', 'arguments': 1}", "QMP input member 'arguments' must be an object"),
    ("{'execute': 'stop', 'frob': 1}", "QMP input member 'frob' is unexpected"),
    ("{'exec-oob': 'migrate-pause'}", "QMP input member 'exec-oob' is unexpected"),
    ("{'execute': ''}", "The command  has not been found"),
    ("{'execute': 'query-status', 'arguments': {'': 1}}", "Parameter '' is unexpected"),
]


class Garbage(VmmTestCase):
    def setUp(self):
        super().setUp()
        self.second = f"{self.folder}/second.qmp"
        self.subject = self.vmm("-qmp", f"unix:{self.second},server=on,wait=off")
        self.before = rss_kib(self.subject)

    def client(self):
        client = Raw(self.second)
        self.addCleanup(client.close)
        return client

    def check_alive(self, client=None):
        """Both monitors serve, and the process has not grown."""
        self.assertEqual(self.subject.run_state(), "running")
        client = client or self.client()
        client.send(b'\xff\n{"execute": "query-status", "id": "alive"}')
        self.assertTrue(client.lines_until("alive")["return"]["running"])
        self.assertLess(rss_kib(self.subject) - self.before, GROWTH_KIB)

    def test_each_kind_of_nonsense_has_its_answer(self):
        client = self.client()
        for text, answer in ANSWERS:
            with self.subTest(text):
                client.send(text.encode())
                error = client.line()["error"]
                self.assertIn(answer, error["desc"])
                # Whatever the broken message left behind is dropped by 0xff, with one answer.
                client.send(b'\xff{"execute": "query-status", "id": 1}')
                self.assertIn("return", client.lines_until(1))
        self.check_alive(client)

    def test_ids_of_every_kind_come_back(self):
        client = self.client()
        for value in (0, -1, 1.5, "", "\u20ac", None, True, [1, [2]], {"a": {"b": []}}, 1 << 63):
            client.send(json.dumps({"execute": "query-name", "id": value}).encode())
            self.assertEqual(client.line()["id"], value)
            client.send(json.dumps({"execute": "no-such", "id": value}).encode())
            answer = client.line()
            self.assertEqual((answer["id"], answer["error"]["class"]), (value, "CommandNotFound"))

    def test_half_a_message_disturbs_nobody_else(self):
        client = self.client()
        client.send(b'{"execute": "query-sta')
        self.assertEqual(self.subject.run_state(), "running")
        client.send(b'tus", "id": 5}')
        self.assertEqual(client.line()["id"], 5)
        client.send(b'{"execute": "qu')
        client.close()
        self.check_alive()  # the next client's stream begins clean

    def test_one_byte_at_a_time(self):
        client = self.client()
        for byte in b'{"execute": "query-status", "id": 1} {"execute": "query-name", "id": 2}':
            client.send(bytes([byte]))
        self.assertEqual([client.line()["id"], client.line()["id"]], [1, 2])

    def test_random_bytes(self):
        client = self.client()
        client.send(random.Random(1).randbytes(MIB // 2))
        self.check_alive(client)

    def test_random_tokens(self):
        source = random.Random(2)
        pieces = ["{", "}", "[", "]", ",", ":", '"', "'", "\\", "execute", "null", "1e9", " ", "\n",
                  "\\u12", '"id"', "-", "true", "\t", "\u20ac"]
        client = self.client()
        client.send("".join(source.choice(pieces) for _ in range(200_000)).encode())
        self.check_alive(client)

    def test_strings_of_a_mebibyte(self):
        client = self.client()
        nearly = "n" * (MIB - 200)
        request = {"execute": "closefd", "arguments": {"fdname": nearly}, "id": 1}
        client.send(json.dumps(request).encode())
        answer = client.line()
        self.assertEqual(answer["error"]["desc"], f"File descriptor named '{nearly}' not found")
        for size in (MIB, 4 * MIB, 32 * MIB):
            request = {"execute": "closefd", "arguments": {"fdname": "n" * size}}
            client.send(json.dumps(request).encode())
            self.assertIn("limit exceeded", client.line()["error"]["desc"])
        request = {"execute": "query-status", "id": "i" * (MIB - 200)}
        client.send(json.dumps(request).encode())
        self.assertEqual(client.line()["id"], request["id"])
        self.check_alive(client)

    def test_deep_nesting(self):
        client = self.client()
        for opening in ("[", '{"a":', '{"id": [', "[{'b': "):
            client.send(opening.encode() * 100_000 + b"\n")
            self.assertIn("limit exceeded", client.line()["error"]["desc"])
            client.send(b'\xff\n{"execute": "query-name", "id": 1}')
            client.lines_until(1)
        deep = "[" * 500 + "]" * 500
        client.send(f'{{"execute": "query-name", "id": {deep}}}'.encode())
        self.assertEqual(client.line()["id"], json.loads(deep))
        self.check_alive(client)

    def test_many_members(self):
        client = self.client()
        members = ",".join(f'"m{n}":{n}' for n in range(60_000))
        client.send(f'{{"execute": "query-name", "arguments": {{{members}}}}}'.encode())
        self.assertIn("is unexpected", client.line()["error"]["desc"])
        self.check_alive(client)

    def test_a_client_that_does_not_read_waits(self):
        client = self.client()
        request = b'{"execute": "query-qmp-schema"}'
        sent = client.stuff(request)
        self.assertGreater(sent, 8)
        self.assertEqual(self.subject.run_state(), "running")
        self.assertLess(rss_kib(self.subject) - self.before, GROWTH_KIB)
        client.send(b"\xff")  # the last one may have been cut
        for _ in range(sent):
            self.assertIn("return", client.line())
        self.check_alive(client)

    def test_a_thousand_connections(self):
        first = self.client()
        others, refused = [], 0
        for _ in range(1000):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            try:
                sock.connect(self.second)
                others.append(sock)
            except BlockingIOError:
                refused += 1  # more than the socket lets wait
                sock.close()
        self.assertEqual(len(others) + refused, 1000)
        self.assertGreater(len(others), 0)
        # One client at a time: the first goes on, the others have not even been greeted.
        first.send(b'{"execute": "query-status", "id": 1}')
        self.assertEqual(first.line()["id"], 1)
        readable, _, _ = select.select(others, [], [], 0)
        self.assertEqual(readable, [])
        self.assertEqual(self.subject.run_state(), "running")
        first.close()
        # Then it is the next one's turn.
        readable, _, _ = select.select(others[:1], [], [], PATIENCE)
        self.assertEqual(readable, others[:1])
        self.assertIn(b"QMP", others[0].recv(1 << 16))
        for sock in others:
            sock.close()
        self.check_alive()


class Scribble(VmmTestCase):
    """The same at a monitor for people, who are echoed."""

    PROMPT = b"\r\n(qemu) "

    def setUp(self):
        super().setUp()
        path = f"{self.folder}/people"
        self.subject = self.vmm("-monitor", f"unix:{path},server=on,wait=off")
        self.before = rss_kib(self.subject)
        self.sock = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.sock.close)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(path)
        self.prompts(1)

    def prompts(self, count, typed=b""):
        """Types, and reads until so many prompts have come; what was shown before the last one."""
        shown = last = b""
        self.sock.setblocking(False)
        while count > 0:
            readable, writable, _ = select.select([self.sock], [self.sock] if typed else [], [],
                                                  PATIENCE)
            self.assertTrue(readable or writable, "the monitor neither reads nor answers")
            if writable:
                with contextlib.suppress(BlockingIOError):
                    typed = typed[self.sock.send(typed):]
            if readable:
                *before, shown = (shown + self.sock.recv(1 << 16)).split(self.PROMPT)
                count -= len(before)
                last = before[-1] if before else last
                shown = shown[-4096:]  # echoes are long
        return last

    def check_alive(self):
        self.assertEqual(self.subject.run_state(), "running")
        self.assertLess(rss_kib(self.subject) - self.before, GROWTH_KIB)
        self.assertIn(b"VM status: running", self.prompts(1, b"info status\n"))

    def test_random_keys(self):
        keys = random.Random(3).randbytes(1 << 16).replace(b"\n", b"").replace(b"\r", b"")
        lines = [keys[at:at + 200] for at in range(0, len(keys), 200)]
        for line in lines:
            self.prompts(1, b"\x1b[H\x1b[F" + line.replace(b"\t", b"").replace(b"\x0c", b"") + b"\n")
        self.check_alive()

    def test_line_without_an_end(self):
        self.assertIn(b"line too long", self.prompts(1, b"quit" + b" " * MIB + b"\n"))
        self.check_alive()

    def test_a_client_that_does_not_read_waits(self):
        self.sock.setblocking(False)
        line, sent = b"help\n", 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += self.sock.send(line * 1000)
        self.assertGreater(sent, 1000 * len(line))
        self.assertEqual(self.subject.run_state(), "running")
        self.assertLess(rss_kib(self.subject) - self.before, GROWTH_KIB)
        # Each of them has its answer when somebody reads.
        self.prompts(sent // len(line))
        if sent % len(line):
            self.prompts(1, b"\n")
        self.check_alive()


if __name__ == "__main__":
    unittest.main()
