# SPDX-License-Identifier: BSD-2-Clause
"""A QMP client for tests: one request at a time, events kept until somebody asks for them."""

import array
import json
import os
import socket
import time

# Only reached by a broken test or a machine that is very busy.
PATIENCE = float(os.environ.get("FERRY_PATIENCE", "60"))


class QmpError(Exception):
    """The command was refused."""

    def __init__(self, error):
        super().__init__(error["desc"])
        self.error_class = error["class"]
        self.desc = error["desc"]


class QmpClosed(Exception):
    """The connection ended."""


class Qmp:
    def __init__(self, sock, patience=PATIENCE):
        self.sock = sock
        self.patience = patience
        self.events = []  # not asked for yet, oldest first
        self.replies = {}
        self.buffer = b""
        self.next_id = 0
        self.greeting = self._receive(time.monotonic() + patience)["QMP"]
        self.cmd("qmp_capabilities")

    @classmethod
    def connect(cls, path, patience=PATIENCE):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        return cls(sock, patience)

    def close(self):
        self.sock.close()

    def cmd(self, execute, arguments=None, **more):
        """Runs a command and returns its value. Keyword arguments: 'exit_on_error' is sent as
        'exit-on-error'."""
        return self.wait_reply(self.send(execute, arguments, **more))

    def send(self, execute, arguments=None, fds=(), **more):
        """Sends a request without waiting; wait_reply() takes the result."""
        self.next_id += 1
        request = {"execute": execute, "id": self.next_id}
        merged = dict(arguments or {})
        merged.update({key.replace("_", "-"): value for key, value in more.items()})
        if merged:
            request["arguments"] = merged
        data = json.dumps(request).encode() + b"\n"
        if fds:
            packed = array.array("i", fds)
            self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)])
        else:
            self.sock.sendall(data)
        return self.next_id

    def wait_reply(self, request_id, patience=None):
        deadline = time.monotonic() + (patience or self.patience)
        while request_id not in self.replies:
            self._take(self._receive(deadline))
        reply = self.replies.pop(request_id)
        if "error" in reply:
            raise QmpError(reply["error"])
        return reply["return"]

    def hmp(self, line):
        return self.cmd("human-monitor-command", command_line=line).replace("\r\n", "\n")

    def wait_event(self, name, patience=None, **data):
        """The oldest event of that name whose data has these values; takes it from the list."""
        wanted = {key.replace("_", "-"): value for key, value in data.items()}
        deadline = time.monotonic() + (patience or self.patience)
        while True:
            for event in self.events:
                have = event.get("data", {})
                if event["event"] == name and all(have.get(k) == v for k, v in wanted.items()):
                    self.events.remove(event)
                    return event
            self._take(self._receive(deadline))

    def pending_events(self):
        """Names of the events that have come and were not waited for."""
        self.cmd("query-status")  # events before its reply are all there now
        return [event["event"] for event in self.events]

    def wait_closed(self, patience=None):
        deadline = time.monotonic() + (patience or self.patience)
        try:
            while True:
                self._take(self._receive(deadline))
        except QmpClosed:
            pass

    def _take(self, message):
        if "event" in message:
            self.events.append(message)
        else:
            self.replies[message.get("id")] = message

    def _receive(self, deadline):
        while b"\n" not in self.buffer:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("no answer on the QMP socket")
            self.sock.settimeout(remaining)
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise QmpClosed("the QMP socket was closed")
            self.buffer += data
        line, self.buffer = self.buffer.split(b"\n", 1)
        return json.loads(line)
