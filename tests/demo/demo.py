#!/usr/bin/python3
# SPDX-License-Identifier: BSD-2-Clause
"""The main job, shown and verified: a VM with 1 GiB of memory under change and two VFIO devices of
64 MiB each moves to another hypervisor process. Run by scripts/demo; FERRY_BUILD names the build.

The destination holds the VM stopped after the hand-over, so that other programs can compare memory and
device state of both sides byte by byte; then it lets the VM run. Exits 1 unless everything was
identical.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "qtest"))
from harness.vmm import BUILD, MEMCMP, Vmm, device, workload  # noqa: E402

MIB = 1 << 20
MEMORY = 1024 * MIB
WORKING_SET = 256 * MIB
STATE = 64 * MIB
FERRYCTL = BUILD / "tools" / "ferryctl" / "ferryctl"
DEVICES = ("nic0", "gpu0")


def say(text=""):
    print(text, flush=True)


def roomy_folder():
    """Memory files of 2 GiB: in RAM when there is room, else where temporary files go."""
    shm = "/dev/shm"
    place = shm if os.path.isdir(shm) and shutil.disk_usage(shm).free > 3 * MEMORY else None
    return Path(tempfile.mkdtemp(prefix="ferry-demo-", dir=place))


def control(folder, name):
    """A monitor of its own for ferryctl."""
    return folder / f"{name}.ctl"


def start(folder, name, *more):
    devices = [option for slot, which in enumerate(DEVICES, 3) for option in device(
        "vfio-pci-soft", id=which, addr=str(slot), x_state_size=f"{STATE // MIB}M",
        x_state_file=folder / f"{name}.{which}", x_pre_copy=True, x_p2p=True,
        x_dirty_rate="4M", x_arc_latency="2ms")]
    return Vmm(folder, name, *devices,
               *workload(f"{WORKING_SET // MIB}M", offset="64M", pages_per_second=20000,
                         pattern="rand", fill="page"),
               "-qmp", f"unix:{control(folder, name)},server=on,wait=off",
               *more, backed=True, memory=f"{MEMORY // MIB}M")


def compare(what, command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    verdict = "identical" if done.returncode == 0 else "DIFFERENT " + done.stdout.strip()
    say(f"  {what:<34} {verdict}")
    return done.returncode == 0


def verify(folder, src, dst):
    """Both VMs stand still: compare them from outside."""
    good = compare(f"RAM, {MEMORY // MIB} MiB", [MEMCMP, src.memory_path, dst.memory_path])
    for which in DEVICES:
        same = filecmp.cmp(folder / f"src.{which}", folder / f"dst.{which}", shallow=False)
        say(f"  {f'device {which}, {STATE // MIB} MiB of state':<34} "
            f"{'identical' if same else 'DIFFERENT'}")
        good = good and same
    return good


def run(folder):
    say(f"A VM with {MEMORY // MIB} MiB of RAM and devices {' and '.join(DEVICES)} "
        f"({STATE // MIB} MiB of state each, PRE_COPY and P2P):")
    src = start(folder, "src")
    dst = start(folder, "dst", "-S", "-incoming", "defer")
    try:
        say("  filling memory and device state")
        src.qtest.memset(0, MEMORY, 0x5A)
        for slot in range(3, 3 + len(DEVICES)):
            model = src.test_device(slot)
            model.setup()
            model.fill(slot)
        src.wait_for(lambda: src.workload()["position"] > 0, "workload under way")
        before = src.workload()["position"]
        say("  running: 20,000 pages a second are written, and 4 MiB of each device's state")
        say()
        uri = f"unix:{folder}/migration"
        dst.cmd("migrate-incoming", uri=uri)
        src.set_parameters(max_bandwidth=0)
        moved = subprocess.run([FERRYCTL, "-s", control(folder, "src"), "migrate", uri,
                                "--destination", control(folder, "dst")], check=False)
        if moved.returncode != 0:
            say(src.log() + dst.log())
            return False
        dst.wait_migration()
        say()
        say("Compared from outside, source stopped and destination not started yet:")
        good = verify(folder, src, dst)
        held = src.workload()["position"]
        dst.cmd("cont")
        dst.wait_for(lambda: dst.workload()["position"] > held, "workload going on")
        say()
        say(f"The VM runs at the destination: its workload went from {before} over {held} (hand-over) "
            f"to {dst.workload()['position']} writes.")
        states = [info["state"] for info in dst.cmd("query-migrate").get("vfio", {}).get(
            "devices", [])]
        source_state = src.run_state()
        say(f"The source is {source_state}; the devices at the destination: {', '.join(states)}.")
        return (good and source_state == "postmigrate" and dst.run_state() == "running"
                and held > before and states == ["running"] * len(DEVICES))
    finally:
        src.close()
        dst.close()


def main():
    folder = roomy_folder()
    begin = time.monotonic()
    try:
        good = run(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say()
    say(f"demo: {'everything shown was verified' if good else 'FAILED'} "
        f"({time.monotonic() - begin:.0f} s)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
