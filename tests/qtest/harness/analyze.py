# SPDX-License-Identifier: BSD-2-Clause
"""Reads a saved migration stream with nothing but what the stream says of itself.

The description at the end is found as other tools find it: from the last NUL byte on, the first
opening brace. Everything before it must then be explained by it, byte for byte.
"""

import json
import struct

PAGE = 4096
START, PART, END, FULL = 1, 2, 3, 4
SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = 5, 6, 7, 8, 0x7E
SWITCHOVER_START = 11
RAM_ZERO, RAM_SIZES, RAM_PAGE, RAM_END, RAM_CONTINUE = 0x2, 0x4, 0x8, 0x10, 0x20
NEVER_DESCRIBED = {("ram", 0)}
LAST_BYTES = 10 << 20


class Malformed(Exception):
    """With the offset where it was noticed."""


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, size):
        if self.at + size > len(self.data):
            raise Malformed(f"{self.at:#x}: {size} bytes wanted, {len(self.data) - self.at} left")
        piece = self.data[self.at:self.at + size]
        self.at += size
        return piece

    def number(self, size):
        return int.from_bytes(self.take(size), "big")

    def name(self):
        size = self.number(1)
        if not 1 <= size <= 127:  # read as a signed byte by some
            raise Malformed(f"{self.at - 1:#x}: a name of {size} bytes")
        return self.take(size).decode("ascii")

    def expect(self, size, wanted, what):
        found = self.number(size)
        if found != wanted:
            raise Malformed(f"{self.at - size:#x}: {what} is {found:#x}, not {wanted:#x}")


class Stream:
    """Parsed by the constructor. `sections`: (name, instance, kind) in order; `ram`: per block
    {page number: bytes, or None for a page of zeros}; `fields` of described sections."""

    def __init__(self, data):
        self.data = data
        self.description = find_description(data)
        self.page_size = self.description["page_size"]
        self.described = {(entry["name"], entry["instance_id"]): entry
                          for entry in self.description["devices"]}
        self.sections, self.blocks, self.ram, self.fields = [], {}, {}, {}
        self.commands = []
        self.ids = {}
        self.block = None
        self.reader = Reader(data)
        self._read()

    def _read(self):
        reader = self.reader
        reader.expect(4, 0x5145564D, "magic")
        reader.expect(4, 3, "version")
        reader.expect(1, CONFIGURATION, "configuration")
        self.configuration = self._described_body(self.description["configuration"])
        while kind := reader.number(1):
            if kind in (START, FULL):
                self._first(kind)
            elif kind in (PART, END):
                number = reader.number(4)
                if number not in self.ids:
                    raise Malformed(f"{reader.at:#x}: section {number} was never begun")
                self._body(*self.ids[number], kind)
                self._footer(number)
            elif kind == COMMAND:
                self._command()
            else:
                raise Malformed(f"{reader.at - 1:#x}: element {kind:#x}")
        reader.expect(1, DESCRIPTION, "description")
        size = reader.number(4)
        if reader.at + size != len(self.data):
            raise Malformed(f"description of {size} bytes, {len(self.data) - reader.at} follow")

    def _first(self, kind):
        reader = self.reader
        number = reader.number(4)
        key = (reader.name(), reader.number(4))
        version = reader.number(4)
        if key not in NEVER_DESCRIBED and key not in self.described:
            raise Malformed(f"{reader.at:#x}: {key} is not described")
        entry = self.described.get(key)
        if entry and "version" in entry and entry["version"] != version:
            raise Malformed(f"{key}: version {version}, described as {entry['version']}")
        if self.ids.setdefault(number, key) != key:
            raise Malformed(f"{key}: number {number} is {self.ids[number]}")
        self._body(*key, kind)
        self._footer(number)

    def _body(self, name, instance, kind):
        self.sections.append((name, instance, kind))
        if name == "ram":
            self._ram()
        else:
            self.fields[name, instance] = self._described_body(self.described[name, instance])

    def _footer(self, number):
        self.reader.expect(1, FOOTER, "footer")
        self.reader.expect(4, number, "number in the footer")

    def _command(self):
        command, size = self.reader.number(2), self.reader.number(2)
        self.commands.append(command)
        if (command, size) != (SWITCHOVER_START, 0):
            raise Malformed(f"command {command} of {size} bytes in a file")

    def _described_body(self, entry):
        """{field: bytes, or a nested dictionary} of fields and subsections."""
        values = {}
        for field in entry["fields"]:
            key = field["name"]
            if "struct" in field:
                count = field.get("array_len", 1)
                nested = [self._described_body(field["struct"]) for _ in range(count)]
                values[key] = nested if "array_len" in field else nested[0]
            elif field["type"] == "capability":
                values[key] = [self.reader.name() for _ in range(field.get("array_len", 1))]
            else:
                values[key] = self.reader.take(field["size"] * field.get("array_len", 1))
        for subsection in entry.get("subsections", []):
            self.reader.expect(1, SUBSECTION, "subsection")
            name = self.reader.name()
            if name != subsection["vmsd_name"]:
                raise Malformed(f"{self.reader.at:#x}: {name}, not {subsection['vmsd_name']}")
            self.reader.expect(4, subsection["version"], f"version of {name}")
            values[name] = self._described_body(subsection)
        return values

    def _ram(self):
        reader = self.reader
        while True:
            word = reader.number(8)
            flags, address = word & (self.page_size - 1), word & ~(self.page_size - 1)
            if flags == RAM_END:
                return
            if flags == RAM_SIZES:
                self._ram_sizes(address)
                continue
            if not flags & RAM_CONTINUE:
                self.block = reader.name()
            if self.block not in self.blocks:
                raise Malformed(f"{reader.at:#x}: page of unknown block {self.block}")
            if address >= self.blocks[self.block]:
                raise Malformed(f"{reader.at:#x}: page beyond {self.block}")
            page = address // self.page_size
            if flags & ~RAM_CONTINUE == RAM_ZERO:
                reader.expect(1, 0, "fill")
                self.ram[self.block][page] = None
            elif flags & ~RAM_CONTINUE == RAM_PAGE:
                self.ram[self.block][page] = reader.take(self.page_size)
            else:
                raise Malformed(f"{reader.at:#x}: page flags {flags:#x}")

    def _ram_sizes(self, total):
        while total > 0:
            name, size = self.reader.name(), self.reader.number(8)
            if size > total or name in self.blocks:
                raise Malformed(f"block {name} of {size} bytes, {total} left")
            self.blocks[name] = size
            self.ram[name] = {}
            total -= size

    def memory(self, block):
        """The block's content, in whole."""
        pages = self.ram[block]
        zeros = bytes(self.page_size)
        return b"".join(pages.get(page) or zeros
                        for page in range(self.blocks[block] // self.page_size))


def find_description(data):
    tail = data[-LAST_BYTES:]
    begin = tail.find(b"{", tail.rfind(b"\0"))
    if begin < 0:
        raise Malformed("no description")
    # What lies right before it must be its length; else a brace there was taken for the first.
    length = struct.unpack(">I", tail[begin - 4:begin])[0]
    if length != len(tail) - begin or tail[begin - 5] != DESCRIPTION:
        raise Malformed(f"description of {len(tail) - begin} bytes, announced as {length}")
    return json.loads(tail[begin:].decode("ascii"))
