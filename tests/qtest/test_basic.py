# SPDX-License-Identifier: BSD-2-Clause
"""A process by itself: command line, life cycle, memory and ports over qtest."""

import signal
import unittest
from pathlib import Path

from harness.pci import PciFunction
from harness.qmp import QmpError
from harness.qtest import QtestError
from harness.vmm import VmmTestCase, device, options, workload


class CommandLine(VmmTestCase):
    def refused(self, *words, args, **keywords):
        status, log = self.vmm_that_fails(*args, **keywords)
        self.assertEqual(status, 1, log)
        for word in words:
            self.assertIn(word, log)

    def test_unknown_option_is_refused_by_name(self):
        self.refused("-frobnicate: invalid option", args=["-frobnicate"])

    def test_unknown_machine_is_refused_by_name(self):
        self.refused("pc-i440fx", args=["-machine", "pc-i440fx"])

    def test_unknown_device_is_refused_by_name(self):
        self.refused("e1000", args=device("e1000"))

    def test_unknown_property_is_refused_by_name(self):
        self.refused("frobnicate", args=workload("1M", frobnicate=1))

    def test_unknown_device_property_is_refused_by_name(self):
        self.refused("frobnicate", args=device("vfio-pci-soft", frobnicate=1))

    def test_private_backing_file_is_refused(self):
        self.refused("share=on", args=options("-object", "memory-backend-file", id="m", size="1M",
                                              mem_path=self.folder / "m"))

    def test_other_accelerator_is_refused(self):
        status, log = self.vmm_that_fails(accel="tcg")
        self.assertEqual(status, 1)
        self.assertIn("-accel tcg: invalid accelerator", log)

    def test_unknown_accelerators_are_passed_over(self):
        vmm = self.vmm("-accel", "qtest", accel="tcg,thread=single")
        self.assertEqual(vmm.run_state(), "running")
        self.assertFalse(vmm.cmd("query-kvm")["enabled"])

    def test_only_machines_with_power_management_say_so(self):
        acpi = {entry["name"]: entry["acpi"] for entry in self.vmm().cmd("query-machines")}
        self.assertEqual(acpi, {"none": False, "ferry-pc-1.0": True, "ferry-q35-1.0": True})

    def test_people_see_that_only_what_migrates_is_accepted(self):
        for args, shown in ((), "off"), (("-only-migratable",), "on"):
            self.assertIn(f"only-migratable: {shown}\n", self.vmm(*args).qmp.hmp("info migrate"))

    def test_serial_port_writes_to_a_chardev_that_is_a_file(self):
        path = self.folder / "serial"
        path.write_text("before ")
        vmm = self.vmm("-chardev", f"file,id=c,path={path},append=on", "-serial", "chardev:c")
        for character in b"after":
            vmm.qtest.outb(0x3F8, character)
        vmm.wait_for(lambda: path.read_text() == "before after", "the output")

    def test_machines_have_versioned_names_and_aliases(self):
        machines = {entry["name"]: entry for entry in self.vmm().cmd("query-machines")}
        self.assertEqual(machines["ferry-q35-1.0"]["alias"], "q35")
        self.assertTrue(machines["ferry-q35-1.0"]["is-default"])
        self.assertEqual(machines["ferry-pc-1.0"]["alias"], "pc")
        self.assertIn("none", machines)

    def test_bad_incoming_address_names_the_option(self):
        self.refused("-incoming nonsense:x", args=["-incoming", "nonsense:x"])

    def test_incoming_channel_that_can_not_be_used_names_it(self):
        for channel, named in (
                ('{"channel-type": "cpr", "addr": {"transport": "socket", "type": "unix", '
                 '"path": "P"}}', "A cpr channel is not supported"),
                ("main,addr.transport=socket,addr.type=vsock,addr.cid=1,addr.port=1", "vsock"),
                ("main,addr.transport=socket,addr.type=inet,addr.host=h,addr.port=65536",
                 "port '65536'")):
            self.refused(f"-incoming {channel}: ", named, args=["-incoming", channel])

    def test_file_at_the_path_of_a_monitor_gives_way(self):
        path = self.folder / "reserved"
        path.write_text("")
        vmm = self.vmm("-monitor", f"unix:{path},server=on,wait=off")
        self.assertTrue(path.is_socket())
        vmm.cmd("quit")

    def test_bind_error_ends_the_start(self):
        self.refused("/nonexistent/q", args=["-qmp", "unix:/nonexistent/q,server=on,wait=off"])

    def test_workload_outside_ram_is_refused(self):
        self.refused("is not all RAM", args=workload("1G"))

    def test_machine_without_pci_bus_refuses_devices(self):
        self.refused("PCI", args=device("vfio-pci-soft"), machine="none")


class LifeCycle(VmmTestCase):
    def test_process_has_the_name_it_was_given(self):
        vmm = self.vmm("-name", "guest,process=ferry-guest")
        self.assertEqual(Path(f"/proc/{vmm.pid}/comm").read_text(), "ferry-guest\n")
        self.assertEqual(vmm.cmd("query-name"), {"name": "guest"})

    def test_qtest_is_logged_to_stderr_unless_told_otherwise(self):
        path = self.folder / "talk"
        for target, at_stderr in ((None, True), (str(path), False), ("none", False)):
            vmm = self.vmm(qtest_log=target)
            vmm.qtest.writeb(0x1000, 0x5a)
            self.assertEqual("writeb" in vmm.log(), at_stderr, target)
        self.assertIn("writeb", path.read_text())

    def dumped(self, vmm):
        """Whether the guest's memory would be in a core dump."""
        name, flags = "", {}
        for line in Path(f"/proc/{vmm.pid}/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                name = line.split(maxsplit=5)[5] if len(line.split()) > 5 else ""
            elif line.startswith("VmFlags:"):
                flags[name] = line.split()[1:]
        (found,) = (flags[name] for name in flags if "memfd:" in name)
        return "dd" not in found

    def test_guest_memory_can_be_kept_out_of_core_dumps(self):
        self.assertTrue(self.dumped(self.vmm()))
        self.assertFalse(self.dumped(self.vmm("-machine", "q35,dump-guest-core=off")))

    def test_starts_running_and_quits(self):
        vmm = self.vmm()
        self.assertEqual(vmm.cmd("query-status"), {"running": True, "status": "running"})
        self.assertEqual(vmm.quit(), 0)
        self.assertEqual(vmm.wait_event("SHUTDOWN")["data"],
                         {"guest": False, "reason": "host-qmp-quit"})

    def test_signals_end_it_in_order(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            vmm = self.vmm()
            self.assertEqual(vmm.terminate(number), 0)
            self.assertEqual(vmm.wait_event("SHUTDOWN")["data"]["reason"], "host-signal")
            self.assertIn(f"terminating on signal {number.value}", vmm.log())

    def reset_by_guest(self, vmm):
        vmm.qtest.outb(0xCF9, 6)

    def test_guest_that_resets_goes_on(self):
        vmm = self.vmm()
        self.reset_by_guest(vmm)
        self.assertEqual(vmm.wait_event("RESET")["data"], {"guest": True, "reason": "guest-reset"})
        self.assertEqual(vmm.run_state(), "running")

    def test_reset_with_no_reboot_ends_the_process(self):
        for option in (("-no-reboot",), ("-action", "reboot=shutdown")):
            vmm = self.vmm(*option)
            self.reset_by_guest(vmm)
            self.assertEqual(vmm.wait_event("SHUTDOWN")["data"],
                             {"guest": True, "reason": "guest-reset"})
            self.assertEqual(vmm.wait_exit(), 0)

    def test_system_reset_with_no_reboot_ends_the_process(self):
        vmm = self.vmm("-no-reboot")
        self.assertEqual(vmm.cmd("system_reset"), {})
        self.assertEqual(vmm.wait_event("SHUTDOWN")["data"],
                         {"guest": False, "reason": "host-qmp-system-reset"})
        self.assertEqual(vmm.wait_exit(), 0)

    def test_reset_with_neither_reboot_nor_shutdown_stops_the_vm(self):
        vmm = self.vmm("-action", "reboot=shutdown,shutdown=pause")
        self.reset_by_guest(vmm)
        vmm.wait_event("SHUTDOWN", guest=True, reason="guest-reset")
        vmm.wait_run_state("shutdown")
        with self.assertRaises(QmpError):
            vmm.cmd("cont")

    def test_prelaunch_until_cont(self):
        vmm = self.vmm("-S")
        self.assertEqual(vmm.run_state(), "prelaunch")
        vmm.cmd("cont")
        self.assertEqual(vmm.run_state(), "running")
        self.assertEqual(vmm.events(), ["RESUME"])

    def test_stop_and_cont_reply_when_done(self):
        vmm = self.vmm(*workload("4M", pages_per_second=100000))
        vmm.cmd("stop")
        self.assertEqual(vmm.run_state(), "paused")
        before = vmm.workload()["position"]
        self.assertEqual(vmm.workload()["position"], before)
        vmm.cmd("cont")
        vmm.wait_for(lambda: vmm.workload()["position"] > before)
        self.assertEqual(vmm.events(), ["STOP", "RESUME"])

    def test_failed_incoming_ends_with_status_1(self):
        path = self.folder / "nothing"
        path.write_bytes(b"this is no migration stream")
        status, log = self.vmm_that_fails("-incoming", f"file:{path}")
        self.assertEqual(status, 1)
        self.assertIn("not a migration stream", log)

    def test_pidfile_holds_the_pid_and_goes(self):
        path = self.folder / "pid"
        vmm = self.vmm("-pidfile", str(path))
        self.assertEqual(int(path.read_text()), vmm.pid)
        vmm.quit()
        self.assertFalse(path.exists())

    def test_commands_of_its_own_refuse_unknown_ids(self):
        vmm = self.vmm()
        with self.assertRaises(QmpError):
            vmm.cmd("x-set-workload", id="nope", pages_per_second=1)


class Memory(VmmTestCase):
    def test_values_are_little_endian(self):
        qtest = self.vmm().qtest
        qtest.writel(0x1000, 0x11223344)
        self.assertEqual(qtest.read(0x1000, 4), bytes([0x44, 0x33, 0x22, 0x11]))
        self.assertEqual(qtest.readw(0x1002), 0x1122)
        self.assertEqual(qtest.cmd("endianness"), "little")

    def test_read_write_and_memset(self):
        qtest = self.vmm().qtest
        self.assertEqual(qtest.cmd("write 0x2000 4 0x0102"), "")
        self.assertEqual(qtest.cmd("read 0x2000 4"), "0x01020000")
        qtest.memset(0x3000, 0x2000, 0xAB)
        self.assertEqual(qtest.read(0x3000, 0x2000), b"\xab" * 0x2000)
        data = bytes(range(256)) * 1024
        qtest.write(0x10000, data)
        self.assertEqual(qtest.read(0x10000, len(data)), data)

    def test_unassigned_reads_all_ones(self):
        qtest = self.vmm().qtest
        self.assertEqual(qtest.readq(0xE0000000), 0xFFFFFFFFFFFFFFFF)
        qtest.writeq(0xE0000000, 0)
        self.assertEqual(qtest.inl(0x500), 0xFFFFFFFF)

    def test_ram_above_the_hole_begins_at_4_gib(self):
        qtest = self.vmm(memory="3G").qtest
        qtest.writeb(0x100000000, 0x42)
        self.assertEqual(qtest.readb(0x100000000), 0x42)
        self.assertEqual(qtest.readb(0x80000000), 0xFF)

    def test_malformed_requests_fail_and_the_next_works(self):
        qtest = self.vmm().qtest
        for line in ("readb", "readb x", "read 0 0", "read 0xffffffffffffffff 2", "outb 0x10000 1",
                     "write 0 1 zz", "b64write 0 1 !!!!", "nonsense", "memset 0 1", "clock_set -1"):
            with self.assertRaises(QtestError, msg=line):
                qtest.cmd(line)
        self.assertEqual(qtest.readb(0), 0)

    def test_virtual_clock_stands_still_between_steps(self):
        qtest = self.vmm().qtest
        self.assertEqual(qtest.clock_step(1000), 1000)
        self.assertEqual(qtest.clock_step(0), 1000)
        self.assertEqual(qtest.cmd("clock_set 5000"), "5000")
        with self.assertRaises(QtestError):
            qtest.cmd("clock_set 4000")

    def test_empty_slot_reads_all_ones(self):
        function = PciFunction(self.vmm().qtest, 7)
        self.assertFalse(function.present())
        self.assertEqual(function.config_readl(0), 0xFFFFFFFF)

    def test_workload_fills_what_a_checker_expects(self):
        for pattern in ("seq", "rand"):
            for fill in ("page", "record"):
                vmm = self.vmm(*workload("1M", offset="2M", pages_per_second=100000, seed=7,
                                         pattern=pattern, fill=fill), backed=True)
                vmm.wait_for(lambda vmm=vmm: vmm.workload()["position"] > 300)
                vmm.cmd("stop")
                self.assertGreater(self.assert_workload_correct(vmm), 300)
                vmm.qtest.writeb(0x200100 if fill == "page" else 0x200030, 1)
                vmm.qtest.writeb(0x200101 if fill == "page" else 0x200031, 2)
                with self.assertRaises(AssertionError):
                    self.assert_workload_correct(vmm)


if __name__ == "__main__":
    unittest.main()
