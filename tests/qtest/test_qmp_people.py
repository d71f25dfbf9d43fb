# SPDX-License-Identifier: BSD-2-Clause
"""The commands for people (HMP), line by line, against what they are known to print."""

import unittest

from harness.vmm import VmmTestCase, device, workload
from test_qmp_table import CAPABILITIES, OUT_OF_TIME, RING


def more_about(name):
    return f'Try "help {name}" for more information\n'


# Lines of HMP and all that they print; a tuple: parts of it.
PEOPLE_ROWS = [
    ("", ""),
    ("info status", "VM status: running\n"),
    ("s", ""),
    ("info status", "VM status: paused\n"),
    ("system_reset", ""),
    ("info status", "VM status: paused (prelaunch)\n"),
    ("c", ""),
    ("info name", "vm0\n"),
    ("info uuid", "00000000-0000-0000-0000-000000000000\n"),
    ("info version", ("10.0.",)),
    ("info kvm", ("kvm support: ",)),
    ("info cpus", ("",)),
    ("info pci", ("  Bus  0, device   0, function 0:\n    Host bridge: PCI device ",
                  '      id "d0"\n')),
    ("warp", "unknown command: 'warp'\n"),
    ("info warp", "unknown command: 'info warp'\n"),
    ("migrate", "migrate: string expected\n" + more_about("migrate")),
    ("stop now", "stop: extraneous characters at the end of line\n" + more_about("stop")),
    ("migrate_set_capability events maybe",
     "Expected 'on' or 'off'\n" + more_about("migrate_set_capability")),
    ("migrate_set_capability warp on",
     "Error: Parameter 'capability' does not accept value 'warp'\n"),
    ("migrate_set_parameter warp 1", "Error: invalid parameter value: warp\n"),
    ("migrate_set_parameter downtime-limit 2000001",
     "Error: Parameter 'downtime_limit' expects a value between 0 and 2000000\n"),
    ("migrate_set_parameter max-bandwidth 3", ""),
    ("info migrate_parameters", ("max-bandwidth: 3145728 bytes/second\n",)),
    ("migrate_set_parameter max-bandwidth 4k", ""),
    ("info migrate_parameters", ("max-bandwidth: 4096 bytes/second\n",)),
    ("migrate_set_parameter max-bandwidth 1.5G", ""),
    ("info migrate_parameters", ("max-bandwidth: 1610612736 bytes/second\n",)),
    ("migrate_set_parameter max-bandwidth 0x10", ""),
    ("info migrate_parameters", ("max-bandwidth: 16777216 bytes/second\n",)),
    ("migrate_set_parameter max-bandwidth 1.5x", "Error: Invalid size 1.5x\n"),
    ("migrate_set_parameter multifd-compression zlib", ""),
    ("info migrate_parameters", ("multifd-compression: zlib\n",)),
    ("migrate_set_parameter multifd-compression qpl",
     "Error: Parameter 'multifd-compression' does not accept value 'qpl'\n"),
    ("migrate_set_parameter multifd-zlib-level 10",
     "Error: Parameter 'multifd_zlib_level' expects a value between 0 and 9\n"),
    ("help foo", "unknown command: 'foo'\n"),
    ("help info foo", "unknown command: 'info foo'\n"),
    ("help info status", "info status -- show whether the VM runs\n"),
    ("? info migrate", "info migrate -- show the migration\n"),
    ("info status extra", "status: extraneous characters at the end of line\n"
                          'Try "help info status" for more information\n'),
    ('migrate -d "unix:/x', "unterminated string\n"),
    ("migrate_set_parameter cpu-throttle-tailslow yes", ""),
    ("info migrate_parameters", ("cpu-throttle-tailslow: on\n", "downtime-limit: 300 ms\n",
                                 "tls-creds: ''\n", "vcpu-dirty-limit: 1 MB/s\n",
                                 "xbzrle-cache-size: 67108864 bytes\n")),
    ("migrate_cancel", ""),
    ("migrate_continue pre-switchover", "Error: Migration not in expected state: none\n"),
    ("migrate_recover unix:/x",
     "Error: Migrate recover can only be run when postcopy is paused.\n"),
    ("migrate_pause", ("Error: migrate-pause is currently only supported during ",)),
    ("migrate_start_postcopy", ("Error: Enable postcopy with migrate_set_capability",)),
    ("migrate_incoming unix:/x",
     "Error: '-incoming' was not specified on the command line\n"),
    ("migrate -d warp:1", "Error: unknown migration protocol: warp:1\n"),
    ("announce_self", ""),
    ("set_vcpu_dirty_limit 3", f"Error: {RING}\n"),
    ("cancel_vcpu_dirty_limit", ""),
    ("info dirty_rate", ("Status: unstarted\n", "Dirty rate: (not ready)\n")),
    ("calc_dirty_rate 61", f"Error: {OUT_OF_TIME}\n"),
    ("calc_dirty_rate 60", "Starting dirty rate measurement with period 60 seconds\n"
                           "[Please use 'info dirty_rate' to check results]\n"),
    ("info dirty_rate", ("Status: measuring\n",)),
    ("qom-list /machine/peripheral", "type (str)\nd0 (child<vfio-pci-soft>)\n"),
    ("qom-get d0 realized", "true\n"),
    ("qom-set d0 x-migration-multifd-transfer off", ""),
    ("qom-get d0 x-migration-multifd-transfer", '"off"\n'),
    ("object_add memory-backend-ram,id=m9,size=1M", ""),
    ("info memdev", ("memory backend: m9\n  size:  1048576\n",)),
    ("object_del m9", ""),
    ("object_del m9", "Error: object 'm9' not found\n"),
    ("device_add vfio-pci-soft,id=h0", ""),
    ("device_del h0", ""),
    ("device_del h0", "Error: Device 'h0' not found\n"),
]

PARAMETERS_FOR_PEOPLE = [
    "announce-initial", "announce-max", "announce-rounds", "announce-step",
    "throttle-trigger-threshold", "cpu-throttle-initial", "cpu-throttle-increment",
    "cpu-throttle-tailslow", "max-cpu-throttle", "tls-creds", "tls-hostname", "max-bandwidth",
    "avail-switchover-bandwidth", "downtime-limit", "x-checkpoint-delay", "multifd-channels",
    "multifd-compression", "zero-page-detection", "xbzrle-cache-size", "max-postcopy-bandwidth",
    "tls-authz", "x-vcpu-dirty-limit-period", "vcpu-dirty-limit", "mode", "direct-io"]


class People(VmmTestCase):
    def test_lines_for_people(self):
        vmm = self.vmm(*device("vfio-pci-soft", id="d0", addr="3"), *workload("1M"))
        for number_, (line, expected) in enumerate(PEOPLE_ROWS):
            with self.subTest(f"row {number_}: {line}"):
                shown = vmm.qmp.hmp(line)
                if isinstance(expected, str):
                    self.assertEqual(shown, expected)
                else:
                    for part in expected:
                        self.assertIn(part, shown)

    def test_order_of_what_people_see(self):
        vmm = self.vmm()
        def names(what):
            return [line.split(":")[0] for line in vmm.qmp.hmp(what).splitlines()]
        self.assertEqual(names("info migrate_parameters")[:len(PARAMETERS_FOR_PEOPLE)],
                         PARAMETERS_FOR_PEOPLE)
        self.assertEqual(names("info migrate_capabilities"), list(CAPABILITIES))
        self.assertEqual(names("info migrate"), [
            "globals", "store-global-state", "only-migratable", "send-configuration",
            "send-section-footer", "send-switchover-start", "clear-bitmap-shift"])


if __name__ == "__main__":
    unittest.main()
