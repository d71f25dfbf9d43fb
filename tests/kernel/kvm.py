# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's KVM for test scripts, and what can be seen of the VMs that use it."""

import contextlib
import ctypes
import os
import pathlib
import subprocess

MODULES = ("kvm", "ccp", "kvm-amd")


def load_kvm():
    # KVM patches its own code when CPUs of guests come and go, and a processor that QEMU emulates
    # beside the one that patches may execute the middle of it. So there is one from here on.
    for online in pathlib.Path("/sys/devices/system/cpu").glob("cpu*/online"):
        online.write_text("0")
    for module in MODULES:
        if not pathlib.Path("/sys/module", module.replace("-", "_")).exists():
            subprocess.run(["insmod", f"/lib/modules/{module}.ko"], check=True)
    subprocess.run(["mount", "-t", "debugfs", "debugfs", "/sys/kernel/debug"], check=True)
    assert os.access("/dev/kvm", os.R_OK | os.W_OK)


@contextlib.contextmanager
def main_loop_stopped(vmm):
    """Its first thread executes nothing; the others go on."""
    seize, interrupt, detach, wait_for_all = 0x4206, 0x4207, 17, 0x40000000
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    for request in (seize, interrupt):
        assert ptrace(request, vmm.pid, None, None) == 0, os.strerror(ctypes.get_errno())
    os.waitpid(vmm.pid, wait_for_all)
    try:
        yield
    finally:
        assert ptrace(detach, vmm.pid, None, None) == 0, os.strerror(ctypes.get_errno())


def exits_per_round(vmm, guest):
    """How often the CPU left the guest for an access to a device."""
    (stats,) = pathlib.Path("/sys/kernel/debug/kvm").glob(f"{vmm.pid}-*")

    def look():
        vmm.cmd("stop")
        seen = vmm.qtest.readl(guest.ROUNDS), int((stats / "mmio_exits").read_text())
        vmm.cmd("cont")
        return seen

    rounds, exits = look()
    guest.wait_rounds(vmm, 100)
    rounds_after, exits_after = look()
    return (exits_after - exits) / (rounds_after - rounds)
