# SPDX-License-Identifier: BSD-2-Clause
"""ferry-vmm processes over devices of this kernel, for test scripts. The processes and their protocols
are the qtest harness' (docs/devel/qtest.rst)."""

import os
import shutil
import tempfile

os.environ.setdefault("FERRY_BUILD", "/ferry/build")  # where `run` puts the programs

# pylint: disable=wrong-import-position
from harness.pci import TestDevice  # noqa: E402
from harness.vmm import Vmm, device, start_migration  # noqa: E402
from testdev import Knobs  # noqa: E402

SOURCE, DESTINATION = ("ferry.0", "ferry.1"), ("ferry.2", "ferry.3")
FIRST_SLOT = 3
# Debian's kernel reports no pages that devices wrote, so all RAM is pending until the end: a pause
# that may take long lets a migration end at once, a short one keeps it in pre-copy.
AT_ONCE = {"downtime_limit": 100000, "avail_switchover_bandwidth": 1 << 30, "max_bandwidth": 1 << 30}
NOT_YET = {"downtime_limit": 1, "avail_switchover_bandwidth": 1 << 20, "max_bandwidth": 1 << 30}
# States that a device enters, by its MIGRATION flags.
SAVED = {
    7: ["pre-copy", "pre-copy-p2p", "stop-copy", "stop"],
    5: ["pre-copy", "stop-copy", "stop"],
    3: ["running-p2p", "stop", "stop-copy", "stop"],
    1: ["stop", "stop-copy", "stop"],
}
LOADED = {
    7: ["running-p2p", "stop", "resuming", "stop", "running-p2p", "running"],
    5: ["stop", "resuming", "stop", "running"],
}
LOADED[3], LOADED[1] = LOADED[7], LOADED[5]


class Vms:
    """The VMs of one test: ends what the test leaves, shows the logs when it fails."""

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="vms-", dir="/tmp")
        self.vms = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        for vmm in self.vms:
            vmm.close()
            if kind:
                print(f"--- {' '.join(vmm.command)}\n{vmm.log()}")
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, *args, name=None, memory="32M", **keywords):
        vmm = Vmm(self.folder, name or f"vm{len(self.vms)}", *args, memory=memory, backed=True,
                  wait=False, **keywords)
        self.vms.append(vmm)
        return vmm.connect()

    def over(self, names, *args, knobs=None, properties=None, **keywords):
        """A VM with these devices of ours as d0, d1...; vmm.knobs and vmm.devices have them."""
        words = []
        for number, name in enumerate(names):
            Knobs(name).restore()
            for knob, value in (knobs or {}).items():
                Knobs(name)[knob] = value
            words += device("vfio-pci", id=f"d{number}", addr=f"{FIRST_SLOT + number:x}",
                            sysfsdev=Knobs(name).path, **(properties or {}))
        vmm = self.start(*words, *args, **keywords)
        vmm.knobs = [Knobs(name) for name in names]
        vmm.devices = [TestDevice(vmm.qtest, FIRST_SLOT + number) for number in range(len(names))]
        for knob in vmm.knobs:
            knob["state_log"] = ""
        return vmm

    def source(self, count=1, *args, **keywords):
        vmm = self.over(SOURCE[:count], *args, name="src", **keywords)
        for one in vmm.devices:
            one.setup()
        return vmm

    def destination(self, of, *args, name="dst", devices=DESTINATION, **keywords):
        """For the VM `of`, the devices of which know where their BARs are."""
        vmm = self.over(devices[:len(of.devices)], "-incoming", "defer", *args, name=name,
                        **keywords)
        for here, there in zip(vmm.devices, of.devices):
            here.bars = there.bars
        return vmm

    def pair(self, count=1, **keywords):
        src = self.source(count, **keywords)
        return src, self.destination(src, **keywords)


def begin(src, dst, **parameters):
    """Both commands; failing does not end the destination."""
    src.set_parameters(**parameters)
    start_migration(src, dst, exit_on_error=False)


def move(src, dst, meanwhile=None):
    """A migration that must succeed; meanwhile() is called while it is in pre-copy."""
    begin(src, dst, **(NOT_YET if meanwhile else AT_ONCE))
    if meanwhile:
        src.wait_migration("active")
        meanwhile()
        assert src.migration_status() == "active", src.migration_status()
        src.set_parameters(**AT_ONCE)
    src.wait_migration()
    dst.wait_migration()


def error_of(vmm):
    return vmm.cmd("query-migrate").get("error-desc", "")


def says(vmm, *words):
    """The error of the migration has these words."""
    why = error_of(vmm)
    for word in words:
        assert word in why, f"{vmm.name} does not say '{word}': {why}"


def same_memory(src, dst):
    with open(src.memory_path, "rb") as one, open(dst.memory_path, "rb") as other:
        while True:
            piece = one.read(1 << 20)
            if piece != other.read(1 << 20):
                return False
            if not piece:
                return True


def device_states(vmm):
    """Of the VFIO_MIGRATION events so far."""
    vmm.events()
    return [event["data"]["device-state"] for event in vmm.qmp.events
            if event["event"] == "VFIO_MIGRATION"]
