# SPDX-License-Identifier: BSD-2-Clause
"""Every command of the control surface against a table: what it takes, what it answers, and how it
refuses. The table is QMP as its clients know it, not what the code says of itself."""

import unittest

from harness.qmp_table import (ARRAY, BOOL, DONE, INT, NO_DEVICE, NOT_FOUND, STATUS, TEXT,
                               TEXT_OR_NULL, UINT8, UINT32, UINT64, UNITS, Is, Refused,
                               TableTestCase, number, one_of, wrong)
from harness.qmp_schema import QmpSchema
from harness.vmm import device, migrate, start_migration, workload

PARAMETERS = {
    "announce-initial": (UINT64, 50), "announce-max": (UINT64, 550), "announce-rounds": (UINT64, 5),
    "announce-step": (UINT64, 100), "throttle-trigger-threshold": (UINT8, 50),
    "cpu-throttle-initial": (UINT8, 20), "cpu-throttle-increment": (UINT8, 10),
    "cpu-throttle-tailslow": (BOOL, False), "max-cpu-throttle": (UINT8, 99),
    "tls-creds": (TEXT_OR_NULL, ""), "tls-hostname": (TEXT_OR_NULL, ""),
    "tls-authz": (TEXT_OR_NULL, ""), "max-bandwidth": (UINT64, 134217728),
    "avail-switchover-bandwidth": (UINT64, 0), "downtime-limit": (UINT64, 300),
    "x-checkpoint-delay": (UINT32, 20000), "multifd-channels": (UINT8, 2),
    "multifd-compression": (one_of("none", "zlib", "zstd"), "none"),
    "multifd-zlib-level": (UINT8, 1), "multifd-qatzip-level": (UINT8, 1),
    "multifd-zstd-level": (UINT8, 1),
    "xbzrle-cache-size": (UINT64, 67108864), "max-postcopy-bandwidth": (UINT64, 0),
    "x-vcpu-dirty-limit-period": (UINT64, 1000), "vcpu-dirty-limit": (UINT64, 1),
    "mode": (one_of("normal", "cpr-reboot", "cpr-transfer"), "normal"),
    "zero-page-detection": (one_of("multifd", "none", "legacy"), "multifd"),
    "direct-io": (BOOL, False),
}

CAPABILITIES = (
    "xbzrle", "rdma-pin-all", "auto-converge", "zero-blocks", "events", "postcopy-ram", "x-colo",
    "release-ram", "return-path", "pause-before-switchover", "multifd", "dirty-bitmaps",
    "postcopy-blocktime", "late-block-activate", "x-ignore-shared", "validate-uuid",
    "background-snapshot", "zero-copy-send", "postcopy-preempt", "switchover-ack", "dirty-limit",
    "mapped-ram")

# Command: arguments in their order; a name with '?' may be left out.
COMMANDS = {
    "query-status": {}, "stop": {}, "cont": {}, "system_reset": {}, "system_powerdown": {},
    "system_wakeup": {}, "quit": {}, "query-version": {}, "query-name": {}, "query-uuid": {},
    "query-kvm": {}, "query-commands": {}, "query-machines": {"compat-props?": BOOL},
    "query-qmp-schema": {},
    "qom-list-types": {"implements?": TEXT, "abstract?": BOOL}, "query-target": {},
    "query-cpus-fast": {}, "query-current-machine": {}, "query-pci": {}, "query-memdev": {},
    "object-del": {"id": TEXT}, "device_del": {"id": TEXT},
    "qom-list": {"path": TEXT}, "qom-get": {"path": TEXT, "property": TEXT},
    "human-monitor-command": {"command-line": TEXT, "cpu-index?": INT},
    "getfd": {"fdname": TEXT}, "closefd": {"fdname": TEXT},
    "add-fd": {"fdset-id?": INT, "opaque?": TEXT}, "remove-fd": {"fdset-id": INT, "fd?": INT},
    "query-fdsets": {}, "query-migrate-capabilities": {}, "query-migrate-parameters": {},
    "migrate-set-capabilities": {"capabilities": ARRAY},
    "migrate-set-parameters": {name + "?": kind for name, (kind, _) in PARAMETERS.items()},
    "migrate": {"uri?": TEXT, "channels?": ARRAY, "resume?": BOOL, "detach?": BOOL},
    "migrate-incoming": {"uri?": TEXT, "channels?": ARRAY, "exit-on-error?": BOOL},
    "migrate_cancel": {}, "migrate-continue": {"state": STATUS}, "migrate-pause": {},
    "migrate-recover": {"uri": TEXT}, "migrate-start-postcopy": {}, "query-migrate": {},
    "query-migrationthreads": {},
    "announce-self": {"initial": INT, "max": INT, "rounds": INT, "step": INT,
                      "interfaces?": ARRAY, "id?": TEXT},
    "calc-dirty-rate": {"calc-time": INT, "calc-time-unit?": UNITS, "sample-pages?": INT,
                        "mode?": one_of("page-sampling", "dirty-ring", "dirty-bitmap")},
    "query-dirty-rate": {"calc-time-unit?": UNITS},
    "set-vcpu-dirty-limit": {"cpu-index?": INT, "dirty-rate": UINT64},
    "cancel-vcpu-dirty-limit": {"cpu-index?": INT}, "query-vcpu-dirty-limit": {},
}
# Their further arguments depend on the first ones.
OPEN_COMMANDS = {
    "object-add": {"qom-type": one_of("memory-backend-ram"), "id": TEXT},
    "device_add": {"driver": TEXT, "bus?": TEXT, "id?": TEXT},
    "qom-set": {"path": TEXT, "property": TEXT, "value": None},
}


def argument_rows():
    """(command, arguments, outcome) for each way in which arguments can fail to fit."""
    for name, arguments in {**COMMANDS, **OPEN_COMMANDS}.items():
        required = {argument: kind.good if kind else 1 for argument, kind in arguments.items()
                    if not argument.endswith("?")}
        if name in COMMANDS:
            yield name, {**required, "frob": 1}, Refused("Parameter 'frob' is unexpected")
        for argument, kind in arguments.items():
            plain = argument.rstrip("?")
            if plain == argument:
                rest = {key: value for key, value in required.items() if key != argument}
                yield name, rest, Refused(f"Parameter '{argument}' is missing")
            for value, text in kind.bad if kind else ():
                yield name, {**required, plain: value}, Refused(text(plain))


def refused_parameter(name, value, text):
    return "migrate-set-parameters", {name: value}, Refused(text)


def between(name, low, high):
    return f"Parameter '{name}' expects a value between {low} and {high}"


MAX_THROTTLE = ("Parameter 'max_cpu_throttle' expects an integer in the range of "
                "cpu_throttle_initial to 99")
PARAMETER_ROWS = [
    refused_parameter("announce-initial", 100001, between("announce_initial", 0, 100000)),
    refused_parameter("announce-max", 100001, between("announce_max", 0, 100000)),
    refused_parameter("announce-rounds", 1001, between("announce_rounds", 0, 1000)),
    refused_parameter("announce-step", 0, between("announce_step", 0, 10000)),
    refused_parameter("announce-step", 10001, between("announce_step", 0, 10000)),
    refused_parameter("throttle-trigger-threshold", 0,
                      between("throttle_trigger_threshold", 1, 100)),
    refused_parameter("throttle-trigger-threshold", 101,
                      between("throttle_trigger_threshold", 1, 100)),
    refused_parameter("cpu-throttle-initial", 0, between("cpu_throttle_initial", 1, 99)),
    refused_parameter("cpu-throttle-initial", 100, between("cpu_throttle_initial", 1, 99)),
    refused_parameter("cpu-throttle-increment", 0, between("cpu_throttle_increment", 1, 99)),
    refused_parameter("cpu-throttle-increment", 100, between("cpu_throttle_increment", 1, 99)),
    refused_parameter("max-cpu-throttle", 19, MAX_THROTTLE),
    refused_parameter("max-cpu-throttle", 100, MAX_THROTTLE),
    refused_parameter("max-cpu-throttle", 0, MAX_THROTTLE),
    refused_parameter("downtime-limit", 2000001, between("downtime_limit", 0, 2000000)),
    refused_parameter("multifd-channels", 0, between("multifd_channels", 1, 255)),
    refused_parameter("multifd-zlib-level", 10, between("multifd_zlib_level", 0, 9)),
    refused_parameter("multifd-qatzip-level", 0, between("multifd_qatzip_level", 1, 9)),
    refused_parameter("multifd-zstd-level", 21, between("multifd_zstd_level", 0, 20)),
    ("migrate-set-parameters", {"xbzrle-cache-size": 4095}, Refused(
        "Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size")),
    ("migrate-set-parameters", {"xbzrle-cache-size": 12288}, Refused(
        "Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size")),
    refused_parameter("x-vcpu-dirty-limit-period", 0,
                      between("x-vcpu-dirty-limit-period", 1, 1000)),
    ("migrate-set-parameters", {"vcpu-dirty-limit": 0},
     Refused("Parameter 'vcpu_dirty_limit' must be greater than 1 MB/s")),
    # One that is refused refuses the whole call.
    ("migrate-set-parameters", {"downtime-limit": 77, "announce-rounds": 1001},
     Refused(between("announce_rounds", 0, 1000))),
    ("query-migrate-parameters", {},
     Is({name: default for name, (_, default) in PARAMETERS.items()} | {"x-peer-timeout": int})),
    # Accepted ones are there afterwards; -1 is the largest value.
    ("migrate-set-parameters", {}, DONE),
    ("migrate-set-parameters", {"downtime-limit": 2000000, "max-bandwidth": -1,
                                "cpu-throttle-tailslow": True, "tls-creds": None,
                                "multifd-compression": "zstd", "multifd-zlib-level": 0,
                                "multifd-zstd-level": 20}, DONE),
    ("query-migrate-parameters", {},
     Is({name: default for name, (_, default) in PARAMETERS.items()}
        | {"x-peer-timeout": int, "downtime-limit": 2000000, "max-bandwidth": (1 << 64) - 1,
           "cpu-throttle-tailslow": True, "multifd-compression": "zstd", "multifd-zlib-level": 0,
           "multifd-zstd-level": 20})),
]


def capabilities(*names, state=True):
    return {"capabilities": [{"capability": name, "state": state} for name in names]}


def set_capabilities(outcome, *names, state=True):
    return "migrate-set-capabilities", capabilities(*names, state=state), outcome


# Some features are not there: their capability is refused, whatever its text.
CAPABILITY_ROWS = [
    ("query-migrate-capabilities", {},
     Is(lambda value: value == [{"capability": name, "state": False} for name in CAPABILITIES])),
    ("migrate-set-capabilities", {"capabilities": []}, DONE),
    set_capabilities(Refused("Capability 'switchover-ack' requires capability 'return-path'"),
                     "events", "switchover-ack"),
    set_capabilities(Refused(None, parts=["x-colo"]), "x-colo"),
    set_capabilities(Refused(None), "postcopy-preempt"),
    set_capabilities(Refused(None), "events", "zero-copy-send"),
    set_capabilities(Refused(None), "background-snapshot", "return-path"),
    # None of what was refused is on.
    ("query-migrate-capabilities", {},
     Is(lambda value: not any(entry["state"] for entry in value))),
    set_capabilities(Refused("Parameter 'capability' does not accept value 'warp'"), "warp"),
    ("migrate-set-capabilities", {"capabilities": [{"capability": "events"}]},
     Refused("Parameter 'capabilities[0].state' is missing")),
    ("migrate-set-capabilities", {"capabilities": [{"state": True}]},
     Refused("Parameter 'capabilities[0].capability' is missing")),
    ("migrate-set-capabilities",
     {"capabilities": [{"capability": "events", "state": True}, {"state": True, "capability": 1}]},
     Refused(wrong("capabilities[1].capability", "string"))),
    ("migrate-set-capabilities",
     {"capabilities": [{"capability": "events", "state": "on"}]},
     Refused(wrong("capabilities[0].state", "boolean"))),
    ("migrate-set-capabilities",
     {"capabilities": [{"capability": "events", "state": True, "frob": 1}]},
     Refused("Parameter 'capabilities[0].frob' is unexpected")),
    ("migrate-set-capabilities", {"capabilities": ["events"]},
     Refused(wrong("capabilities[0]", "object"))),
    set_capabilities(DONE, "events", "return-path", "switchover-ack", "pause-before-switchover",
                     "auto-converge", "validate-uuid", "dirty-bitmaps", "late-block-activate",
                     "zero-blocks"),
    set_capabilities(Refused("Capability 'switchover-ack' requires capability 'return-path'"),
                     "return-path", state=False),
    set_capabilities(DONE, *(name for name in CAPABILITIES), state=False),
]

NO_ADDRESS = "need either 'uri' or 'channels' argument"


def channel(addr, kind="main"):
    return {"channel-type": kind, "addr": addr}


UNIX = {"transport": "socket", "type": "unix", "path": "/nonexistent/m"}


def address_rows(command):
    """Where to, or where from: the same for both ends."""
    def row(outcome, **arguments):
        return command, arguments, outcome

    def at(addr, outcome):
        return row(outcome, channels=[channel(addr)])
    place = "channels[0].addr"
    return [
        row(Refused(NO_ADDRESS)),
        row(Refused(NO_ADDRESS), channels=[]),
        row(Refused(NO_ADDRESS), uri="unix:/nonexistent/m", channels=[channel(UNIX)]),
        row(Refused("Parameter 'channel-type' does not accept value 'side'"),
            channels=[channel(UNIX, "side")]),
        row(Refused("Parameter 'channels[0].addr' is missing"),
            channels=[{"channel-type": "main"}]),
        row(Refused("Parameter 'channels[0].channel-type' is missing"), channels=[{"addr": UNIX}]),
        row(Refused("unknown migration protocol: warp:9"), uri="warp:9"),
        row(Refused("unknown migration protocol: nothing"), uri="nothing"),
        row(Refused(None, parts=["rror parsing address"]), uri="tcp:"),
        row(Refused(None), uri="unix:"),
        row(Refused("file URI has bad offset 1x: Invalid argument"), uri="file:/x,offset=1x"),
        row(Refused("file URI has bad offset 0x1k: Invalid argument"), uri="file:/x,offset=0x1k"),
        at({}, Refused(f"Parameter '{place}.transport' is missing")),
        at({"transport": "pigeon"}, Refused("Parameter 'transport' does not accept value 'pigeon'")),
        at({"transport": 1}, Refused(wrong(f"{place}.transport", "string"))),
        at({"transport": "socket"}, Refused(f"Parameter '{place}.type' is missing")),
        at({"transport": "socket", "type": "tin"},
           Refused("Parameter 'type' does not accept value 'tin'")),
        at({**UNIX, "path": 1}, Refused(wrong(f"{place}.path", "string"))),
        at({**UNIX, "frob": 1}, Refused(f"Parameter '{place}.frob' is unexpected")),
        at({"transport": "socket", "type": "inet", "host": "h"},
           Refused(f"Parameter '{place}.port' is missing")),
        at({"transport": "socket", "type": "inet", "host": "h", "port": 1},
           Refused(wrong(f"{place}.port", "string"))),
        at({"transport": "socket", "type": "fd"}, Refused(f"Parameter '{place}.str' is missing")),
        at({"transport": "exec", "args": "true"}, Refused(wrong(f"{place}.args", "array"))),
        at({"transport": "exec", "args": [1]}, Refused(wrong(f"{place}.args[0]", "string"))),
        at({"transport": "file", "filename": "/x"}, Refused(f"Parameter '{place}.offset' is missing")),
        at({"transport": "file", "offset": 0}, Refused(f"Parameter '{place}.filename' is missing")),
        at({"transport": "socket", "type": "vsock", "cid": "1", "port": "1"}, Refused(None)),
        at({"transport": "rdma", "host": "h", "port": "1"}, Refused(None)),
        row(Refused(None, parts=["no_such_fd"]), uri="fd:no_such_fd"),
    ]


IDLE_MIGRATION_ROWS = [
    ("query-migrate", {}, DONE),
    ("query-migrationthreads", {}, Is(lambda value: value == [])),
    ("migrate_cancel", {}, DONE),
    ("query-migrate", {}, DONE),
    ("migrate-continue", {"state": "pre-switchover"},
     Refused("Migration not in expected state: none")),
    ("migrate-pause", {}, Refused("migrate-pause is currently only supported during "
                                  "postcopy-active or postcopy-recover state")),
    ("migrate-recover", {"uri": "unix:/x"},
     Refused("Migrate recover can only be run when postcopy is paused.")),
    ("migrate-start-postcopy", {},
     Refused("Enable postcopy with migrate_set_capability before the start of migration")),
    ("migrate", {"uri": "unix:/x", "resume": True},
     Refused("Cannot resume if there is no paused migration")),
    ("migrate-incoming", {"uri": "unix:/x"},
     Refused("'-incoming' was not specified on the command line")),
    ("announce-self", {"initial": 50, "max": 550, "rounds": 5, "step": 50}, DONE),
]

VERSION = {"qemu": {"major": 10, "minor": 0, "micro": int}, "package": str}
RUNNING = Is({"running": True, "status": "running"})
INFORMATION_ROWS = [
    ("query-version", {}, Is(VERSION)),
    ("query-name", {}, Is({"name": "vm0"})),
    ("query-uuid", {}, Is({"UUID": "00000000-0000-0000-0000-000000000000"})),
    ("query-target", {}, Is({"arch": "x86_64"})),
    ("query-status", {}, RUNNING),
    ("query-kvm", {}, Is({"enabled": False, "present": bool})),
    ("query-cpus-fast", {}, Is([{"cpu-index": int, "qom-path": str, "thread-id": int,
                                 "target": str}])),
    ("query-current-machine", {}, Is({"wakeup-suspend-support": bool})),
    ("query-machines", {}, Is([{
        "name": str, "alias?": str, "is-default?": True, "cpu-max": int,
        "hotpluggable-cpus": bool, "numa-mem-supported": bool, "deprecated": bool,
        "default-cpu-type?": str, "default-ram-id?": str, "acpi": bool}])),
    ("query-machines", {"compat-props": True}, Is(
        lambda value: all(machine["compat-props"] == [] for machine in value))),
    ("query-machines", {"compat-props": False}, Is(
        lambda value: not any("compat-props" in machine for machine in value))),
    # Nothing executes the guest here, so there is no CPU to name.
    ("human-monitor-command", {"command-line": "info name", "cpu-index": 0},
     Refused("Parameter 'cpu-index' expects a CPU number")),
    ("query-machines", {}, Is(lambda value: "none" in [machine["name"] for machine in value])),
    ("query-commands", {}, Is([{"name": str}])),
    ("query-commands", {}, Is(lambda value: {"qmp_capabilities", *COMMANDS, *OPEN_COMMANDS}
                              <= {entry["name"] for entry in value})),
    ("qom-list-types", {"implements": "accel"},
     Is(lambda value: "qtest-accel" in [entry["name"] for entry in value])),
    ("qom-list-types", {"implements": "accel", "abstract": True},
     Is([{"name": str, "parent?": str, "abstract?": True}])),
    ("qom-list-types", {"implements": "nothing"}, Is(lambda value: value == [])),
    ("query-pci", {}, Is([{"bus": 0, "devices": [{
        "bus": 0, "slot": int, "function": int, "class_info": {"class": int, "desc?": str},
        "id": {"vendor": int, "device": int, "subsystem?": int, "subsystem-vendor?": int},
        "irq?": int, "irq_pin": int, "qdev_id": str, "regions": [{
            "bar": int, "type": {"memory", "io"}, "address": int, "size": int,
            "prefetch?": bool, "mem_type_64?": bool}]}]}])),
    ("query-pci", {}, Is(lambda value: "d0" in [function["qdev_id"]
                                                for function in value[0]["devices"]])),
    ("no-such-command", {}, Refused("The command no-such-command has not been found", NOT_FOUND)),
    ("migrate-cancel", {}, Refused("The command migrate-cancel has not been found", NOT_FOUND)),
    # What is wrong with arguments is told before anything else, as of every command.
    ("qmp_capabilities", {"enable": ["warp"]},
     Refused("Parameter 'null' does not accept value 'warp'")),
    ("qmp_capabilities", {}, Refused(
        "Capabilities negotiation is already complete, command ignored", NOT_FOUND)),
]

RUN_ROWS = [
    ("cont", {}, DONE),
    ("query-status", {}, RUNNING),
    ("stop", {}, DONE),
    ("stop", {}, DONE),
    ("query-status", {}, Is({"running": False, "status": "paused"})),
    ("system_reset", {}, DONE),
    ("query-status", {}, Is({"running": False, "status": "prelaunch"})),
    ("cont", {}, DONE),
    ("query-status", {}, RUNNING),
    ("system_wakeup", {}, Refused(None)),
]

FD_ROWS = [
    ("getfd", {"fdname": "f"}, Refused("No file descriptor supplied via SCM_RIGHTS")),
    ("closefd", {"fdname": "f"}, Refused("File descriptor named 'f' not found")),
    ("add-fd", {}, Refused("No file descriptor supplied via SCM_RIGHTS")),
    ("remove-fd", {"fdset-id": 3}, Refused("File descriptor named 'fdset-id:3' not found")),
    ("remove-fd", {"fdset-id": 3, "fd": 9},
     Refused("File descriptor named 'fdset-id:3, fd:9' not found")),
    ("query-fdsets", {}, Is(lambda value: value == [])),
]

BACKEND = {"qom-type": "memory-backend-ram", "id": "m0", "size": 4096}
MEMDEV = {"id?": str, "size": int, "merge": bool, "dump": bool, "prealloc": bool, "share": bool,
          "reserve?": bool, "host-nodes": [int], "policy": str}
OBJECT_ROWS = [
    ("object-add", {**BACKEND, "frob": 1}, Refused("Parameter 'frob' is unexpected")),
    ("object-add", {"qom-type": "memory-backend-ram", "id": "m0"},
     Refused("Parameter 'size' is missing")),
    ("object-add", {**BACKEND, "size": "1M"}, Refused(wrong("size", "integer"))),
    ("object-add", {**BACKEND, "size": 0}, Refused(None, parts=["doesn't take value '0'"])),
    ("object-add", {**BACKEND, "id": "9m"}, Refused("Parameter 'id' expects an identifier")),
    ("object-add", {**BACKEND, "qom-type": "memory-backend-file"},
     Refused("Parameter 'mem-path' is missing")),
    ("object-add", {**BACKEND, "qom-type": "memory-backend-file", "mem-path": "/nonexistent/x/y",
                    "share": True}, Refused(None, parts=["/nonexistent/x/y"])),
    ("query-memdev", {}, Is(lambda value: value == [])),
    ("object-add", BACKEND, DONE),
    ("object-add", BACKEND, Refused(
        "attempt to add duplicate property 'm0' to object (type 'container')")),
    ("query-memdev", {}, Is([MEMDEV])),
    ("query-memdev", {}, Is(lambda value: [m["id"] for m in value] == ["m0"])),
    ("qom-get", {"path": "/objects/m0", "property": "size"}, Is(4096)),
    ("qom-get", {"path": "m0", "property": "type"}, Is("memory-backend-ram")),
    ("object-del", {"id": "m0"}, DONE),
    ("object-del", {"id": "m0"}, Refused("object 'm0' not found")),
    ("object-del", {"id": "work"}, Refused("object 'work' is in use, can not be deleted")),
]

PROPERTY = [{"name": str, "type": str}]


def has(*names):
    return Is(lambda value: set(names) <= {entry["name"] for entry in value})


TRANSFER = {"path": "d0", "property": "x-migration-multifd-transfer"}
QOM_ROWS = [
    ("qom-list", {"path": "/"}, Is(PROPERTY)),
    ("qom-list", {"path": "/"}, has("machine", "objects", "type")),
    ("qom-list", {"path": "/machine"}, has("peripheral", "peripheral-anon", "unattached")),
    ("qom-list", {"path": "/machine/peripheral/"}, has("d0")),
    ("qom-list", {"path": "/machine/peripheral/d0"}, has("type", "realized", "enable-migration")),
    ("qom-list", {"path": "/nonexistent"},
     Refused("Device '/nonexistent' not found", NO_DEVICE)),
    ("qom-list", {"path": ""}, Refused("Device '' not found", NO_DEVICE)),
    ("qom-get", {"path": "nope", "property": "type"}, Refused("Device 'nope' not found", NO_DEVICE)),
    ("qom-get", {"path": "d0", "property": "nope"},
     Refused("Property 'vfio-pci-soft.nope' not found")),
    ("qom-get", {"path": "d0", "property": "realized"}, Is(True)),
    ("qom-get", {"path": "d0", "property": "enable-migration"}, Is("auto")),
    ("qom-get", {"path": "d0", "property": "skip-vsc-check"}, Is(True)),
    ("qom-get", {"path": "d0", "property": "x-skip-vsc-check"}, Is(True)),
    ("qom-list", {"path": "d0"}, Is(lambda value: [
        entry["name"] for entry in value if "skip-vsc-check" in entry["name"]]
        == ["skip-vsc-check"])),
    ("qom-get", {"path": "/machine/peripheral", "property": "d0"}, Is("/machine/peripheral/d0")),
    ("qom-set", {"path": "d0", "property": "nope", "value": 1},
     Refused("Property 'vfio-pci-soft.nope' not found")),
    ("qom-set", {"path": "d0", "property": "enable-migration", "value": "on"},
     Refused("Attempt to set property 'enable-migration' on device 'd0' (type 'vfio-pci-soft') "
             "after it was realized")),
    ("qom-get", TRANSFER, Is("auto")),
    ("qom-set", {**TRANSFER, "value": "maybe"}, Refused(
        "Parameter 'x-migration-multifd-transfer' does not accept value 'maybe'")),
    ("qom-set", {**TRANSFER, "value": 1},
     Refused(wrong("x-migration-multifd-transfer", "string"))),
    ("qom-set", {**TRANSFER, "value": "off"}, DONE),
    ("qom-get", TRANSFER, Is("off")),
    ("qom-set", {"path": "/objects/work", "property": "pages-per-second", "value": 3}, DONE),
    ("qom-get", {"path": "/objects/work", "property": "pages-per-second"}, Is(3)),
    ("qom-set", {"path": "/objects/work", "property": "pages-per-second", "value": "many"},
     Refused(wrong("pages-per-second", "integer"))),
]

SOFT = {"driver": "vfio-pci-soft", "id": "d1"}
DEVICE_ROWS = [
    ("device_add", {"driver": "e1000"}, Refused("'e1000' is not a valid device model name")),
    ("device_add", {**SOFT, "bus": "pci.9"}, Refused("Bus 'pci.9' not found")),
    ("device_add", {**SOFT, "id": "0"}, Refused("Parameter 'id' expects an identifier")),
    ("device_add", {**SOFT, "frob": 1}, Refused(None, parts=["frob"])),
    ("device_add", {**SOFT, "addr": []}, Refused(wrong("addr", "string"))),
    ("device_add", {**SOFT, "id": "d0"}, Refused(None, parts=["Duplicate device ID 'd0'"])),
    ("device_add", {**SOFT, "addr": "3"}, Refused(None)),
    ("device_del", {"id": "d1"}, Refused("Device 'd1' not found", NO_DEVICE)),
    ("device_add", {**SOFT, "bus": "pcie.0", "addr": "7.0", "migration-events": True}, DONE),
    ("qom-get", {"path": "d1", "property": "hotplugged"}, Is(True)),
    ("qom-get", {"path": "d1", "property": "migration-events"}, Is(True)),
    ("qom-get", {"path": "d1", "property": "addr"}, Is("07.0")),
    ("stop", {}, DONE),
    ("cont", {}, DONE),
    ("device_del", {"id": "d1"}, DONE),
    ("qom-list", {"path": "d1"}, Refused("Device 'd1' not found", NO_DEVICE)),
]

RING = ("dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set")
OUT_OF_TIME = "Calculation time is out of range [50ms, 60000ms]."
OUT_OF_SAMPLES = "sample-pages is out of range[128, 16384]."
RATE = {"status": {"unstarted", "measuring", "measured"}, "start-time": int, "calc-time": int,
        "calc-time-unit": {"second", "millisecond"}, "sample-pages": int, "mode": "page-sampling",
        "dirty-rate?": int, "vcpu-dirty-rate?": list}
UNSTARTED = {"status": "unstarted", "start-time": 0, "calc-time": 0, "calc-time-unit": "second",
             "sample-pages": 0, "mode": "page-sampling"}
DIRTY_RATE_ROWS = [
    ("query-dirty-rate", {}, Is(UNSTARTED)),
    ("calc-dirty-rate", {"calc-time": 0}, Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": -1}, Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": 61}, Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": 1 << 62}, Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": 49, "calc-time-unit": "millisecond"}, Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": 60001, "calc-time-unit": "millisecond"},
     Refused(OUT_OF_TIME)),
    ("calc-dirty-rate", {"calc-time": 1, "sample-pages": 512, "mode": "dirty-bitmap"},
     Refused("sample-pages is used only in page-sampling mode")),
    ("calc-dirty-rate", {"calc-time": 1, "sample-pages": 127}, Refused(OUT_OF_SAMPLES)),
    ("calc-dirty-rate", {"calc-time": 1, "sample-pages": 16385}, Refused(OUT_OF_SAMPLES)),
    ("calc-dirty-rate", {"calc-time": 1, "mode": "dirty-ring"},
     Refused("mode dirty-ring is not enabled, use other method instead.")),
    ("calc-dirty-rate", {"calc-time": 60}, DONE),
    ("calc-dirty-rate", {"calc-time": 1},
     Refused("the dirty rate is already being measured.")),
    ("query-dirty-rate", {}, Is({**RATE, "status": "measuring", "calc-time": 60,
                                 "sample-pages": 512})),
    ("query-dirty-rate", {"calc-time-unit": "millisecond"},
     Is({**RATE, "calc-time": 60000, "calc-time-unit": "millisecond"})),
    ("set-vcpu-dirty-limit", {"dirty-rate": 1}, Refused(RING)),
    ("cancel-vcpu-dirty-limit", {}, DONE),
    ("query-vcpu-dirty-limit", {}, Is(lambda value: value == [])),
]

INCOMING_ROWS = [
    ("query-status", {}, Is({"running": False, "status": "inmigrate"})),
    ("query-migrate", {}, DONE),
    ("migrate", {"uri": "unix:/x"}, Refused("Guest is waiting for an incoming migration")),
    ("migrate-incoming", {"channels": [channel(UNIX), channel(UNIX)]}, Refused(
        "Channel list must have only one entry, for type 'main'")),
    # They only decide whether it will run.
    ("stop", {}, DONE),
    ("query-status", {}, Is({"running": False, "status": "inmigrate"})),
    ("cont", {}, DONE),
    ("query-status", {}, Is({"running": False, "status": "inmigrate"})),
]

IN_PROGRESS = "There's a migration process in progress"
PAUSED_ROWS = [
    ("query-status", {}, Is({"running": False, "status": "finish-migrate"})),
    ("migrate", {"uri": "unix:/x"}, Refused(IN_PROGRESS)),
    ("migrate-set-capabilities", {"capabilities": []}, Refused(IN_PROGRESS)),
    ("migrate-set-parameters", {"max-bandwidth": 0}, DONE),
    ("cont", {}, Refused("Migration is not finalized yet")),
    ("device_add", SOFT, Refused("device_add not allowed while migrating")),
    ("device_del", {"id": "d0"}, Refused("device_del not allowed while migrating")),
    ("migrate-continue", {"state": "active"},
     Refused("Migration not in expected state: pre-switchover")),
    ("migrate", {"uri": "unix:/x", "resume": True},
     Refused("Cannot resume if there is no paused migration")),
]

RAM_COUNTERS = ("transferred", "remaining", "total", "duplicate", "normal", "normal-bytes",
                "dirty-pages-rate", "dirty-sync-count", "dirty-sync-missed-zero-copy",
                "postcopy-requests", "page-size", "multifd-bytes", "precopy-bytes",
                "downtime-bytes", "postcopy-bytes", "pages-per-second")
RAM = {name: int for name in RAM_COUNTERS} | {"mbps": number}
OURS = {"x-pending-calls?": list, "x-timeline?": list}
VFIO = {"vfio?": {"transferred": int,
                  "devices": [{"id": str, "state": str, "sent": int, "loaded": int}]}}
COMPLETED_ROWS = [
    ("query-migrate", {}, Is({"status": "completed", "ram": RAM | {"remaining": 0,
                                                                   "page-size": 4096},
                              "total-time": int, "setup-time": int, "downtime": int,
                              **VFIO, **OURS})),
    ("query-status", {}, Is({"running": False, "status": "postmigrate"})),
    ("migrate", {"uri": "unix:/x"},
     Refused("Can't migrate the vm that was paused due to previous migration")),
    ("migrate_cancel", {}, DONE),
    ("migrate-continue", {"state": "pre-switchover"},
     Refused("Migration not in expected state: completed")),
    ("cont", {}, DONE),
    ("query-status", {}, RUNNING),
]


class Table(TableTestCase):
    def machine(self):
        return self.vmm(*device("vfio-pci-soft", id="d0", addr="3"), *workload("1M"))

    def test_arguments_that_do_not_fit(self):
        vmm = self.machine()
        self.check(vmm, argument_rows())
        self.check(vmm, [("query-status", {}, RUNNING), ("query-migrate", {}, DONE)])

    def test_parameters(self):
        self.check(self.vmm(), PARAMETER_ROWS)

    def test_capabilities(self):
        self.check(self.vmm(), CAPABILITY_ROWS)

    def test_without_a_migration(self):
        vmm = self.vmm()
        self.check(vmm, IDLE_MIGRATION_ROWS)
        self.check(vmm, address_rows("migrate"))

    def test_information(self):
        self.check(self.machine(), INFORMATION_ROWS)

    def test_what_is_not_to_be_relied_on_says_so(self):
        schema = QmpSchema(self.vmm().cmd("query-qmp-schema"))

        def features(command, which, *path):
            entity = schema.entities[schema.of(command, "command")[which]]
            for name in path:
                member = next(one for one in entity["members"] if one["name"] == name)
                if "type" not in member:
                    return member.get("features")
                entity = schema.entities[member["type"]]
                while entity["meta-type"] == "array":
                    entity = schema.entities[entity["element-type"]]
            return member.get("features")
        for outcome, *where in (
                (["unstable"], "migrate-set-parameters", "arg-type", "x-checkpoint-delay"),
                (["unstable"], "query-migrate-parameters", "ret-type", "x-vcpu-dirty-limit-period"),
                (["unstable"], "query-migrate", "ret-type", "x-timeline"),
                (["unstable"], "query-machines", "arg-type", "compat-props"),
                (["unstable"], "migrate-set-capabilities", "arg-type", "capabilities",
                 "capability", "x-ignore-shared"),
                (["deprecated"], "migrate-set-capabilities", "arg-type", "capabilities",
                 "capability", "zero-blocks"),
                (None, "migrate-set-capabilities", "arg-type", "capabilities", "capability",
                 "events"),
                (None, "migrate", "arg-type", "uri")):
            self.assertEqual(features(*where), outcome, where)
        self.assertEqual(schema.of("query-migrationthreads", "command")["features"], ["deprecated"])
        self.assertEqual(schema.of("x-query-board", "command")["features"], ["unstable"])
        self.assertNotIn("features", schema.of("query-migrate", "command"))

    def test_run_control(self):
        self.check(self.machine(), RUN_ROWS)

    def test_descriptors(self):
        self.check(self.vmm(), FD_ROWS)

    def test_objects(self):
        self.check(self.machine(), OBJECT_ROWS)

    def test_object_tree(self):
        self.check(self.machine(), QOM_ROWS)

    def test_devices(self):
        vmm = self.machine()
        self.check(vmm, DEVICE_ROWS)
        vmm.wait_event("DEVICE_DELETED", device="d1", path="/machine/peripheral/d1")

    def test_dirty_rate(self):
        self.check(self.machine(), DIRTY_RATE_ROWS)

    def test_incoming(self):
        vmm = self.vmm("-incoming", "defer")
        self.check(vmm, INCOMING_ROWS)
        self.check(vmm, address_rows("migrate-incoming"))
        where = f"{self.folder}/in"
        self.check(vmm, [("migrate-incoming", {"uri": f"unix:{where}"}, DONE)])
        self.check(vmm, [
            ("query-migrate", {}, Is({"status": "setup", **OURS, "socket-address": [
                {"type": "unix", "path": where}]})),
            ("migrate-incoming", {"uri": f"unix:{where}"},
             Refused("The incoming migration has already been started"))])

    def test_in_pre_switchover_and_after(self):
        with self.pair(*device("vfio-pci-soft", id="d0", addr="3")) as (src, dst):
            src.set_capabilities("pause-before-switchover")
            start_migration(src, dst)
            src.wait_migration("pre-switchover")
            self.check(src, PAUSED_ROWS)
            src.cmd("migrate-continue", state="pre-switchover")
            src.wait_migration()
            src.wait_run_state("postmigrate")
            self.check(src, COMPLETED_ROWS)
            self.check(dst, [
                ("query-migrate", {}, Is({"status": "completed", **VFIO, **OURS})),
                ("migrate-incoming", {"uri": "unix:/x"}, Refused(None))])

    def test_failed_at_once_and_later(self):
        vmm = self.vmm()
        failed = {"status": "failed", "error-desc": str, **OURS}
        self.check(vmm, [
            # Connected later: the reply knows nothing of it.
            ("migrate", {"uri": "unix:/nonexistent/m"}, DONE)])
        vmm.wait_migration("failed")
        self.check(vmm, [
            ("query-migrate", {}, Is(failed)),
            ("query-migrate", {}, Is(lambda value: "/nonexistent/m" in value["error-desc"]
                                     and "No such file or directory" in value["error-desc"])),
            ("migrate_cancel", {}, DONE),
            ("query-migrate", {}, Is(failed)),
            # Opened at once: the reply is the failure, and the status as well.
            ("migrate", {"uri": "file:/nonexistent/f"}, Refused(None, parts=["/nonexistent/f"])),
            ("query-migrate", {}, Is(failed)),
            ("query-migrate", {}, Is(lambda value: "/nonexistent/f" in value["error-desc"])),
            ("query-status", {}, RUNNING)])

    def test_descriptor_that_is_not_there_fails_the_attempt(self):
        named = {"addr": {"transport": "socket", "type": "fd", "str": "nope"},
                 "channel-type": "main"}
        for arguments in ({"uri": "fd:nope"}, {"channels": [named]}, {"uri": "file:/dev/fdset/7"}):
            with self.subTest(arguments):
                vmm = self.vmm()
                vmm.set_capabilities("events")
                outcome, refusal = self.outcome(vmm, "migrate", arguments)
                self.assertEqual(outcome, "error")
                self.check(vmm, [
                    ("query-migrate", {}, Is({"status": "failed", "error-desc": refusal["desc"],
                                              **OURS})),
                    ("query-status", {}, RUNNING)])
                self.assertEqual([event["data"]["status"] for event in vmm.qmp.events
                                  if event["event"] == "MIGRATION"], ["setup", "failed"])

    def test_listening_destination_can_not_be_a_source(self):
        vmm = self.vmm("-incoming", f"unix:{self.folder}/in")
        self.check(vmm, [
            ("query-migrate", {}, Is({"status": "setup", **OURS, "socket-address": list})),
            ("migrate", {"uri": "unix:/x"},
             Refused("Guest is waiting for an incoming migration"))])

    def test_dirty_rate_is_measured(self):
        vmm = self.vmm(*workload("32M", pages_per_second=1000000))
        self.check(vmm, [("calc-dirty-rate", {"calc-time": 50, "calc-time-unit": "millisecond",
                                              "sample-pages": 16384}, DONE)])
        vmm.wait_for(lambda: vmm.cmd("query-dirty-rate")["status"] == "measured")
        self.check(vmm, [
            ("query-dirty-rate", {}, Is({**RATE, "dirty-rate": lambda rate: rate > 0})),
            ("calc-dirty-rate", {"calc-time": 60}, DONE)])

    def test_dirty_rate_is_measured_by_the_bitmap(self):
        vmm = self.vmm(*workload("32M", pages_per_second=1000000))
        self.check(vmm, [("calc-dirty-rate", {"calc-time": 50, "calc-time-unit": "millisecond",
                                              "mode": "dirty-bitmap"}, DONE)])
        vmm.wait_for(lambda: vmm.cmd("query-dirty-rate")["status"] == "measured")
        bitmap = {**RATE, "mode": "dirty-bitmap", "sample-pages": 0}
        self.check(vmm, [
            ("query-dirty-rate", {}, Is({**bitmap, "dirty-rate": lambda rate: rate > 0})),
            ("calc-dirty-rate", {"calc-time": 60, "mode": "dirty-bitmap"}, DONE)])

    def test_migration_goes_before_a_measurement_by_the_bitmap(self):
        busy = workload("8M", offset="8M", pages_per_second=20000)
        with self.pair(*busy, backed=True) as (src, dst):
            self.check(src, [("calc-dirty-rate", {"calc-time": 60, "mode": "dirty-bitmap"}, DONE)])
            src.set_parameters(max_bandwidth=16 << 20, downtime_limit=1)
            start_migration(src, dst)
            src.wait_migration("active")
            src.wait_for(lambda: src.cmd("query-migrate")["ram"]["dirty-sync-count"] > 1)
            src.set_parameters(max_bandwidth=1 << 30, downtime_limit=2000)
            src.wait_migration()
            dst.wait_migration()
            dst.cmd("stop")
            self.assert_workload_correct(dst)

    def test_measurement_by_the_bitmap_is_refused_while_a_migration_runs(self):
        with self.pair(*workload("8M", offset="8M", pages_per_second=20000)) as (src, dst):
            src.set_parameters(max_bandwidth=8 << 20, downtime_limit=1)
            start_migration(src, dst)
            src.wait_migration("active")
            src.wait_for(lambda: src.cmd("query-migrate")["ram"]["dirty-sync-count"] > 0)
            self.check(src, [("calc-dirty-rate", {"calc-time": 1, "mode": "dirty-bitmap"},
                              Refused(None, parts=["dirty log", "page-sampling"]))])
            src.cmd("migrate_cancel")
            src.wait_migration("cancelled")
            dst.wait_exit()
            self.check(src, [("calc-dirty-rate", {"calc-time": 1, "mode": "dirty-bitmap"}, DONE)])

    def test_device_that_was_added_migrates(self):
        with self.pair() as (src, dst):
            for vmm in (src, dst):
                vmm.cmd("device_add", driver="vfio-pci-soft", id="late", addr="5")
            info, _ = migrate(src, dst)
            self.assertEqual([entry["id"] for entry in info["vfio"]["devices"]], ["late"])
            src.wait_run_state("postmigrate")
            dst.wait_run_state("running")

    def test_quit(self):
        vmm = self.vmm()
        self.check(vmm, [("quit", {}, DONE)])
        vmm.qmp.wait_closed()
        vmm.wait_event("SHUTDOWN", guest=False, reason="host-qmp-quit")
        self.assertEqual(vmm.wait_exit(), 0)


if __name__ == "__main__":
    unittest.main()
