# SPDX-License-Identifier: BSD-2-Clause
"""ferry-vmm processes for tests.

    class Basic(VmmTestCase):
        def test_moves(self):
            with self.pair(device("vfio-pci-soft", id="d0", addr="3"), memory="64M") as (src, dst):
                src.qtest.writeb(0x1000, 0x5a)
                migrate(src, dst)
                self.assertEqual(dst.qtest.readb(0x1000), 0x5a)
"""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

from .pci import TestDevice
from .qmp import PATIENCE, Qmp, QmpClosed
from .qtest import Qtest

ROOT = Path(__file__).resolve().parent.parent.parent.parent
BUILD = Path(os.environ.get("FERRY_BUILD", ROOT / "build" / "release"))
VMM = BUILD / "system" / "vmm" / "ferry-vmm"
MEMCMP = BUILD / "tools" / "ferry-memcmp" / "ferry-memcmp"
FINAL = ("completed", "failed", "cancelled")
LIBRARY = re.compile(r"\.so(\.|$)")


def _die_with_parent():
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _value(value):
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value).replace(",", ",,")


def options(kind, first, **properties):
    """["-object", "type,key=value"]; '_' in a key stands for '-', True and False for on and off."""
    text = first + "".join(f",{key.replace('_', '-')}={_value(value)}"
                           for key, value in properties.items())
    return [kind, text]


def device(driver, **properties):
    return options("-device", driver, **properties)


def workload(working_set, **properties):
    properties.setdefault("id", "work")
    return options("-object", "ferry-workload", working_set=working_set, **properties)


class Vmm:
    """One process. Made by VmmTestCase.vmm() and pair(), which also see to its end."""

    def __init__(self, folder, name, *args, machine="q35", memory="64M", backed=False,
                 qtest=True, qtest_log="none", accel="qtest", wait=True, pass_fds=()):
        """args: options, or lists of them. backed: guest RAM is the file self.memory_path. pass_fds:
        descriptors that the process inherits, under their numbers."""
        self.name = name
        self.folder = Path(folder)
        self.log_path = self.folder / f"{name}.log"
        self.qmp_path = str(self.folder / f"{name}.qmp")
        self.memory_path = self.folder / f"{name}.ram"
        self.qmp = None
        self.qtest = Qtest(str(self.folder / f"{name}.qtest")) if qtest else None
        command = [str(VMM), "-accel", accel, "-name", name, "-display", "none", "-nodefaults",
                   "-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
        if backed:
            command += options("-object", "memory-backend-file", id="ram0", size=memory,
                               mem_path=self.memory_path, share=True)
            command += ["-machine", f"{machine},memory-backend=ram0"]
        else:
            command += ["-machine", machine, "-m", memory]
        if qtest:
            command += ["-qtest", f"unix:{self.qtest.path}"]
            if qtest_log:
                command += ["-qtest-log", qtest_log]
        for argument in args:
            command += [argument] if isinstance(argument, str) else list(argument)
        self.command = command
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=pass_fds,
                preexec_fn=_die_with_parent)
        if wait:
            self.connect()

    def connect(self):
        """Waits until the process serves QMP, then connects to it; a VM that shall run does so."""
        deadline = time.monotonic() + PATIENCE
        while self.qmp is None:
            try:
                self.qmp = Qmp.connect(self.qmp_path)
            except (FileNotFoundError, ConnectionRefusedError):
                if self.process.poll() is not None:
                    raise AssertionError(
                        f"{self.name} ended with {self.process.returncode}: {self.log()}") from None
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{self.name} does not serve QMP") from None
                time.sleep(0.005)
        if self.qtest:
            self.qtest.accept()
            self.wait_for(lambda: "qtest" in self.threads(), "the qtest thread")
        if not {"-S", "-incoming"} & set(self.command):
            # Served before its devices have started.
            self.wait_run_state("running")
            self.qmp.events.clear()
        return self

    # QMP

    def cmd(self, execute, arguments=None, **more):
        return self.qmp.cmd(execute, arguments, **more)

    def wait_event(self, name, patience=None, **data):
        return self.qmp.wait_event(name, patience, **data)

    def events(self):
        return self.qmp.pending_events()

    def run_state(self):
        return self.cmd("query-status")["status"]

    def wait_run_state(self, *states):
        return self._poll(self.run_state, states, "run state")

    def migration_status(self):
        return self.cmd("query-migrate").get("status", "none")

    def wait_migration(self, *states):
        """Waits for one of the states (default: completed); fails at another final one."""
        states = states or ("completed",)

        def look():
            status = self.migration_status()
            if status in FINAL and status not in states:
                info = self.cmd("query-migrate")
                raise AssertionError(f"{self.name}: migration {status}, not {states}: "
                                     f"{info.get('error-desc')}")
            return status
        return self._poll(look, states, "migration status")

    def wait_for(self, condition, what="condition"):
        """Waits until condition() is true; returns its value."""
        deadline = time.monotonic() + PATIENCE
        while True:
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {what} does not hold")
            time.sleep(0.01)

    def _poll(self, look, wanted, what):
        deadline = time.monotonic() + PATIENCE
        while True:
            value = look()
            if value in wanted:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: {what} is {value}, not {wanted}")
            time.sleep(0.01)

    def set_capabilities(self, *names, state=True):
        self.cmd("migrate-set-capabilities", capabilities=[
            {"capability": name.replace("_", "-"), "state": state} for name in names])

    def set_parameters(self, **parameters):
        self.cmd("migrate-set-parameters", **parameters)

    def workload(self, name="work"):
        """What x-query-workloads says of one."""
        return next(w for w in self.cmd("x-query-workloads") if w["id"] == name)

    def test_device(self, slot):
        """The software device in that slot; setup() it once per VM, not again after migration."""
        return TestDevice(self.qtest, slot)

    # The process

    @property
    def pid(self):
        return self.process.pid

    def fds(self):
        """Descriptors that are open, as {number: what}."""
        folder = Path(f"/proc/{self.pid}/fd")
        found = {}
        for entry in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found[int(entry.name)] = os.readlink(entry)
        return found

    def threads(self):
        """Names of all threads, sorted."""
        names = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                names.append((task / "comm").read_text().strip())
        return sorted(names)

    def mappings(self):
        """Bytes that are mapped, by what: files, memfds, devices. Heap, stacks and other memory
        without a name come and go; a library stays once something has needed it."""
        found = {}
        for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines():
            fields = line.split(maxsplit=5)
            name = fields[5] if len(fields) == 6 else "["
            if name.startswith("[") or LIBRARY.search(name):
                continue
            first, end = (int(number, 16) for number in fields[0].split("-"))
            found[name] = found.get(name, 0) + end - first
        return found

    def resources(self):
        """What must not grow: kinds of descriptors, names of threads, mappings."""
        kinds = sorted(re.sub(r":\[\d+\]$", "", what) for what in self.fds().values())
        return {"descriptors": kinds, "threads": self.threads(), "mappings": self.mappings()}

    def wait_resources(self, before):
        """Until resources() are those again: a thread may need a moment to end."""
        try:
            self.wait_for(lambda: self.resources() == before)
        except TimeoutError:
            raise AssertionError(
                f"{self.name} has {self.resources()}, had before {before}") from None

    def log(self):
        return self.log_path.read_text(errors="replace")

    def kill(self):
        """kill -9: what a host failure looks like."""
        self.process.kill()
        return self.process.wait(PATIENCE)

    def terminate(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    @contextlib.contextmanager
    def frozen(self):
        """SIGSTOP, and SIGCONT afterwards: a host that hangs. Nothing of it runs meanwhile."""
        self.process.send_signal(signal.SIGSTOP)
        self.wait_for(self._is_stopped, "stopped threads")
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _is_stopped(self):
        try:
            # The state follows the name, which stands in parentheses.
            return all((task / "stat").read_text().rpartition(")")[2].split()[0] == "T"
                       for task in Path(f"/proc/{self.pid}/task").iterdir())
        except (FileNotFoundError, ProcessLookupError):
            return False  # a thread has just ended

    def quit(self):
        """The QMP command; returns the exit status."""
        with contextlib.suppress(QmpClosed):
            self.cmd("quit")
        return self.wait_exit()

    def wait_exit(self):
        return self.process.wait(PATIENCE)

    def close(self):
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        if self.qmp:
            self.qmp.close()
        if self.qtest:
            self.qtest.close()


def start_migration(src, dst, uri=None, **arguments):
    """Both commands, without waiting for the end. dst was started with incoming='defer'."""
    uri = uri or f"unix:{dst.folder / dst.name}.mig"
    dst.cmd("migrate-incoming", uri=uri, **arguments)
    src.cmd("migrate", uri=uri)
    return uri


def migrate(src, dst, uri=None):
    """A whole migration that must succeed; returns (query-migrate of src, of dst)."""
    start_migration(src, dst, uri)
    src.wait_migration()
    dst.wait_migration()
    return src.cmd("query-migrate"), dst.cmd("query-migrate")


class VmmTestCase(unittest.TestCase):
    """Ends what a test leaves, shows the logs of one that failed."""

    def setUp(self):
        if not VMM.exists():
            self.fail(f"{VMM} does not exist: build first, or set FERRY_BUILD")
        # Short: unix socket paths hold 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="ferry-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.vmms = []
        self.addCleanup(self._end_all)

    def _end_all(self):
        for vmm in self.vmms:
            vmm.close()
        outcome = getattr(self, "_outcome", None)
        if outcome is not None and not outcome.success:
            for vmm in self.vmms:
                text = vmm.log()
                if text:
                    print(f"--- log of {vmm.name}\n{text}", file=sys.stderr)

    def vmm(self, *args, name=None, **keywords):
        """A process; ends with the test."""
        vmm = Vmm(self.folder, name or f"vm{len(self.vmms)}", *args, wait=False, **keywords)
        self.vmms.append(vmm)
        return vmm.connect()

    def vmm_that_fails(self, *args, **keywords):
        """One that is expected to end by itself before it serves anything: (status, log)."""
        vmm = Vmm(self.folder, f"vm{len(self.vmms)}", *args, wait=False, **keywords)
        self.vmms.append(vmm)
        return vmm.wait_exit(), vmm.log()

    @contextlib.contextmanager
    def pair(self, *args, incoming="defer", source=(), destination=(), **keywords):
        """Source and destination with the same options, and own ones after them."""
        number = len(self.vmms) // 2
        suffix = str(number) if number else ""
        src = self.vmm(*args, *source, name=f"src{suffix}", **keywords)
        dst = self.vmm(*args, *destination, "-incoming", incoming, name=f"dst{suffix}", **keywords)
        yield src, dst
        for vmm in (src, dst):
            if vmm.process.poll() is None:
                self.assertEqual(vmm.quit(), 0, f"exit status of {vmm.name}")

    def assert_same_memory(self, src, dst):
        """Both were started with backed=True; neither runs a workload at the moment."""
        done = subprocess.run([MEMCMP, src.memory_path, dst.memory_path], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def assert_workload_correct(self, vmm, name="work"):
        """vmm was started with backed=True and is stopped. Checked by another program."""
        state = vmm.workload(name)
        offset = state["offset"]
        text = (f"seed={state['seed']},position={state['position']},"
                f"working-set={state['working-set']},offset={offset},"
                f"pattern={state['pattern']},fill={state['fill']}")
        done = subprocess.run([MEMCMP, "--workload", text, vmm.memory_path], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return state["position"]
