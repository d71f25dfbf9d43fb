# SPDX-License-Identifier: BSD-2-Clause
"""Saved streams explain themselves to a reader that knows nothing of this program."""

from harness.analyze import END, FULL, PART, START, Malformed, Stream, find_description
from harness.vmm import VmmTestCase, options, workload


class SavedStream(VmmTestCase):
    def save(self, *args, wait=None, **keywords):
        vmm = self.vmm(*args, backed=True, **keywords)
        if wait:
            vmm.wait_for(lambda: vmm.workload()["position"] > wait)
        path = self.folder / "stream"
        vmm.cmd("migrate", uri=f"file:{path}")
        vmm.wait_migration()
        return vmm, Stream(path.read_bytes())

    def check(self, vmm, stream):
        (block,) = stream.blocks
        self.assertEqual(set(stream.ram[block]), set(range(stream.blocks[block] // 4096)))
        self.assertEqual(stream.memory(block), vmm.memory_path.read_bytes())
        kinds = [kind for name, _, kind in stream.sections if name == "ram"]
        self.assertEqual((kinds[0], kinds[-1]), (START, END))
        self.assertEqual(set(kinds[1:-1]) - {PART}, set())
        full = [(name, instance) for name, instance, kind in stream.sections if kind == FULL]
        self.assertEqual(full, list(stream.described))
        self.assertEqual(len(stream.commands), 1)
        self.assertEqual(len(stream.fields["timer", 0]), len(stream.described["timer", 0]["fields"]))

    def test_idle_q35_explains_itself(self):
        vmm, stream = self.save(memory="8M")
        self.check(vmm, stream)
        self.assertIn(b"q35", stream.configuration["name"])
        state = stream.fields["globalstate", 0]
        self.assertIn(b"running\0", b"".join(value for value in state.values()))

    def test_idle_none_explains_itself(self):
        vmm, stream = self.save(machine="none", memory="8M")
        self.check(vmm, stream)
        self.assertEqual(stream.configuration["name"], b"none")

    def test_q35_with_a_workload_explains_itself(self):
        vmm, stream = self.save(workload("2M", pages_per_second=20000), memory="8M", wait=100)
        self.check(vmm, stream)
        self.assert_workload_correct(vmm)

    def test_none_with_a_workload_explains_itself(self):
        self.check(*self.save(workload("2M", pages_per_second=20000), machine="none",
                              memory="8M", wait=100))

    def test_description_is_found_whatever_its_length(self):
        # Names of many lengths: one of them would put a brace into the length field.
        for size in range(1, 100, 7):
            with self.subTest(size=size):
                _, stream = self.save(*workload("64k", id="w" * size), memory="1M", qtest=False,
                                      name=f"n{size}")
                self.assertIn("devices", stream.description)
                self.vmms[-1].close()

    def test_several_blocks_are_all_there(self):
        _, stream = self.save(*options("-object", "memory-backend-ram", id="extra", size="1M"),
                              memory="4M")
        self.assertEqual(sorted(stream.blocks.values()), [1 << 20, 4 << 20])

    def test_offset_leaves_what_lies_below(self):
        vmm = self.vmm(memory="1M")
        path = self.folder / "stream"
        path.write_bytes(b"kept" * 1024 + b"gone" * 1024)
        vmm.cmd("migrate", uri=f"file:{path},offset=0x1000")
        vmm.wait_migration()
        data = path.read_bytes()
        self.assertEqual(data[:4096], b"kept" * 1024)
        Stream(data[4096:])


class Analyzer(VmmTestCase):
    """The judge is judged: what it must refuse."""

    def test_damage_is_noticed(self):
        vmm = self.vmm(memory="1M")
        vmm.cmd("migrate", uri=f"file:{self.folder}/stream")
        vmm.wait_migration()
        data = (self.folder / "stream").read_bytes()
        Stream(data)
        footer = data.index(b"\x7e\x00\x00\x00")
        for number, bad in enumerate((data[1:], data[:-1], data[:footer] + data[footer + 1:],
                                      data[:footer] + b"\x7f" + data[footer + 1:], data + b"{}")):
            with self.subTest(number=number), self.assertRaises((Malformed, ValueError)):
                Stream(bad)
        with self.assertRaises(Malformed):
            find_description(bytes(100))
