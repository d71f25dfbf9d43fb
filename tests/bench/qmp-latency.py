#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""How long does QMP take to reply while a VM migrates? A client of its own on each side asks one
command after another through whole migrations, back and forth; each reply counts to the phase in
which it came, which the events on the same connection tell. Times are the client's, so they hold
what its own scheduling costs, but not the parsing of the reply."""

import contextlib
import json
import math
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "qtest"))
from harness.qmp import Qmp, QmpClosed  # noqa: E402
from harness.soft import soft  # noqa: E402
from harness.vmm import Vmm, start_migration, workload  # noqa: E402

ROUNDS = 6
MEMORY, WORKING_SET, STATE = "512M", "128M", "64M"
COMMANDS = [("query-status", {}), ("query-migrate", {}), ("query-migrate-parameters", {}),
            ("query-migrate-capabilities", {}), ("query-cpus-fast", {}), ("query-name", {}),
            ("query-fdsets", {}), ("query-machines", {}), ("query-commands", {}),
            ("query-dirty-rate", {}), ("qom-list", {"path": "/machine/peripheral/d0"}),
            ("human-monitor-command", {"command-line": "info migrate"}),
            ("query-qmp-schema", {})]


class StampedQmp(Qmp):
    """Notes when the last message had come, before it is parsed."""

    stamp = 0.0

    def _receive(self, deadline):
        while b"\n" not in self.buffer:
            self.sock.settimeout(deadline - time.monotonic())
            data = self.sock.recv(1 << 20)
            if not data:
                raise QmpClosed("the QMP socket was closed")
            self.buffer += data
            self.stamp = time.monotonic()
        return super()._receive(deadline)


class Prober(threading.Thread):
    """Asks until told to stop; samples are (phase, command, seconds)."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.qmp = StampedQmp.connect(path)
        self.samples = []
        self.status = ""  # of the migration
        self.runs = True
        self.states = {}  # of devices
        self.over = threading.Event()

    def run(self):
        with contextlib.suppress(QmpClosed):
            while not self.over.is_set():
                for command, arguments in COMMANDS:
                    begin = time.monotonic()
                    self.qmp.cmd(command, arguments)
                    took = self.qmp.stamp - begin
                    for event in self.qmp.events:
                        self.note(event)
                    self.qmp.events.clear()
                    self.samples.append((self.phase, command, took))

    def note(self, event):
        data = event.get("data", {})
        if event["event"] == "MIGRATION":
            self.status = data["status"]
        elif event["event"] in ("STOP", "RESUME"):
            self.runs = event["event"] == "RESUME"
        elif event["event"] == "VFIO_MIGRATION":
            self.states[data["device-id"]] = data["device-state"]

    @property
    def phase(self):
        if self.status in ("", "completed"):
            return "idle"
        if "resuming" in self.states.values():
            return "devices load"
        if "stop-copy" in self.states.values():
            return "devices save"
        return "memory goes" if self.runs else "pause"


def percentile(ordered, share):
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def summary(samples):
    ordered = sorted(took for _, _, took in samples)
    slowest = max(samples, key=lambda sample: sample[2])
    return {"replies": len(samples), "p50_ms": round(1000 * percentile(ordered, 0.50), 2),
            "p99_ms": round(1000 * percentile(ordered, 0.99), 2),
            "max_ms": round(1000 * slowest[2], 2), "slowest": slowest[1]}


def migrate_once(src, dst):
    for vmm in (src, dst):
        vmm.set_capabilities("events", "return_path")
        vmm.set_parameters(downtime_limit=2000, max_bandwidth=512 << 20)
    start_migration(src, dst)
    src.wait_migration()
    dst.wait_migration()
    dst.wait_run_state("running")


def measure(folder, by_phase):
    """One migration, with processes of its own."""
    options = [*workload(WORKING_SET, offset="128M", pages_per_second=20000)]
    for slot, name in ((3, "d0"), (4, "d1")):
        options += soft(slot, id=name, x_state_size=STATE, x_dirty_rate="64M", x_arc_latency="20ms",
                        migration_events=True)
    with contextlib.ExitStack() as stack:
        vmms, probers = [], []
        for name, more in (("src", ()), ("dst", ("-incoming", "defer"))):
            path = f"{folder}/{name}.probe"
            vmm = Vmm(folder, name, *options, *more, "-qmp", f"unix:{path},server=on,wait=off",
                      memory=MEMORY, qtest=False)
            stack.callback(vmm.close)
            vmms.append(vmm)
            probers.append(Prober(path))
        for prober in probers:
            prober.start()
        migrate_once(*vmms)
        for name, prober in zip(("source", "destination"), probers, strict=True):
            prober.over.set()
            prober.join()
            for phase, command, took in prober.samples:
                by_phase[f"{name}, {phase}"].append((phase, command, took))


def main():
    by_phase = defaultdict(list)
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="ferry-") as folder:
            measure(folder, by_phase)
    busy = [(name, command, took) for name, samples in by_phase.items()
            if not name.endswith("idle") for _, command, took in samples]
    by_command = defaultdict(list)
    for name, command, took in busy:
        by_command[command].append((name, command, took))
    slowest = max(busy, key=lambda sample: sample[2])
    worst = max(by_command.items(), key=lambda entry: summary(entry[1])["p99_ms"])
    print(json.dumps({
        "bench": "qmp-latency", "rounds": ROUNDS, **summary(busy),
        "slowest_phase": slowest[0],
        "worst_p99": {"command": worst[0], "ms": summary(worst[1])["p99_ms"]},
        "phases": {name: summary(samples) for name, samples in sorted(by_phase.items())}}))


if __name__ == "__main__":
    main()
