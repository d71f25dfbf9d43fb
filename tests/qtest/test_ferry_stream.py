# SPDX-License-Identifier: BSD-2-Clause
"""ferry-stream on what ferry-vmm saves: it keeps all rules and holds the devices' state."""

import json
import struct
import subprocess

from harness.soft import soft
from harness.vmm import BUILD, VmmTestCase

TOOL = BUILD / "tools" / "ferry-stream" / "ferry-stream"
STATE_BYTES = 1 << 20
SLOTS = (3, 4)
IMAGE_HEADER = struct.Struct("<4sIQQQQ")
IMAGE_RECORD = struct.Struct("<IIQ")
CHUNK = 1


def device_name(slot):
    return f"0000:00:{slot:02x}.0/vfio"


def state_in(image):
    """The state of a software device out of its image: docs/devel/test-device.rst."""
    magic, _, _, state_bytes, _, _ = IMAGE_HEADER.unpack_from(image)
    assert magic == b"FTD1", magic
    state = bytearray(state_bytes)
    at = IMAGE_HEADER.size
    while at < len(image):
        kind, length, offset = IMAGE_RECORD.unpack_from(image, at)
        at += IMAGE_RECORD.size
        if kind == CHUNK:
            state[offset:offset + length] = image[at:at + length]
        at += length
    assert at == len(image)
    return bytes(state)


class FerryStream(VmmTestCase):
    def tool(self, *arguments, status=0, stdin=subprocess.DEVNULL):
        done = subprocess.run([TOOL, *arguments], stdin=stdin, capture_output=True, check=False)
        self.assertEqual(done.returncode, status, (done.stdout, done.stderr))
        return done.stdout

    def save(self):
        """(the VM, the path of its stream), with two devices whose states differ."""
        devices = [soft(slot, id=f"d{slot}", x_state_size=STATE_BYTES,
                        x_state_file=self.folder / f"state{slot}") for slot in SLOTS]
        vmm = self.vmm(*devices, memory="16M")
        for slot in SLOTS:
            vmm.test_device(slot).setup().fill(slot)
        vmm.qtest.write(0x100000, b"not zero")
        path = self.folder / "stream"
        vmm.cmd("migrate", uri=f"file:{path}")
        vmm.wait_migration()
        return vmm, path

    def test_saved_vm_keeps_all_rules(self):
        _, path = self.save()
        self.assertIn(b": ok, ", self.tool("--check", path))
        with path.open("rb") as stream:
            self.assertIn(b"standard input: ok, ", self.tool("--check", "-", stdin=stream))
        with subprocess.Popen(["cat", path], stdout=subprocess.PIPE) as cat:
            self.assertIn(b"standard input: ok, ", self.tool("--check", "-", stdin=cat.stdout))

    def test_tree_and_json_show_both_devices(self):
        _, path = self.save()
        told = json.loads(self.tool("--json", path))
        self.assertTrue(told["ok"], told["problems"])
        names = [device_name(slot) for slot in SLOTS]
        self.assertEqual([device["idstr"] for device in told["devices"]], names)
        full = [element["idstr"] for element in told["elements"] if element["type"] == "full"]
        self.assertEqual([name for name in full if name in names], names)
        self.assertFalse([e for e in told["elements"] if "guessed" in e])
        (block,) = told["blocks"]
        self.assertGreaterEqual(block["normal_pages"] + block["zero_pages"], 4096)
        tree = self.tool(path).decode()
        for name in names:
            self.assertRegex(tree, rf"  start id=\d+ idstr='{name}' instance=0")

    def test_image_is_what_the_device_had(self):
        _, path = self.save()
        image = self.folder / "image"
        for slot in SLOTS:
            self.tool("--extract-image", f"0000:00:{slot:02x}.0", "-o", image, path)
            state = (self.folder / f"state{slot}").read_bytes()
            self.assertTrue(any(state))
            self.assertEqual(state_in(image.read_bytes()), state)

    def test_damage_is_found(self):
        _, path = self.save()
        data = path.read_bytes()
        path.write_bytes(data[:-1])
        self.assertIn(b"truncated", self.tool("--check", path, status=1))
        path.write_bytes(data[:len(data) // 2])
        self.assertIn(b"truncated", self.tool("--check", path, status=1))
        path.write_bytes(b"x" + data[1:])
        self.assertIn(b"byte 0x0: magic", self.tool("--check", path, status=1))
