# SPDX-License-Identifier: BSD-2-Clause
"""The software device as an option, and its faults: calls that fail or are held."""

from .vmm import device

SLOT = 3


def soft(slot=SLOT, **properties):
    """-device vfio-pci-soft in that slot, id d0 unless told; '_' in names stands for '-'."""
    properties.setdefault("id", "d0")
    return device("vfio-pci-soft", addr=slot, **properties)


def faults(vmm, script, dev="d0"):
    vmm.cmd("x-set-faults", id=dev, script=script)


def hold(vmm, call, dev="d0"):
    faults(vmm, f"hold={call}", dev)


def release(vmm, dev="d0"):
    faults(vmm, "release", dev)


def pending(vmm):
    """[(who, call)] of what query-migrate says is inside a driver."""
    return [(call["who"], call["call"])
            for call in vmm.cmd("query-migrate").get("x-pending-calls", [])]


def board_name(call):
    """How a call that was held by its arc is named there: by what was asked for."""
    return call if not call.startswith("arc:") else "set state "


def wait_held(vmm, call, dev="d0"):
    """Until somebody is inside that call; the name it has in query-migrate."""
    wanted = board_name(call)

    def look():
        return next((name for who, name in pending(vmm)
                     if who == dev and name.startswith(wanted)), None)
    return vmm.wait_for(look, f"{call} held")


def states(vmm):
    """{id: state} of devices with migration_events=True, as their last event says."""
    found = {}
    vmm.events()
    for event in vmm.qmp.events:
        if event["event"] == "VFIO_MIGRATION":
            found[event["data"]["device-id"]] = event["data"]["device-state"]
    return found


def wait_states(vmm, state, *devs):
    """Until all these devices (default: d0) are in it. They are opened as running, without event."""
    def look():
        known = states(vmm)
        return all(known.get(dev, "running") == state for dev in devs or ("d0",))
    vmm.wait_for(look, f"devices in {state}")


def start_auto_dma(dev, first=0x400000, size=0x400000):
    """Makes the device write pages of guest memory by itself, at x-dma-rate."""
    dev.writeq(dev.AUTO_IOVA, first)
    dev.writeq(dev.AUTO_BYTES, size)
    dev.writel(dev.AUTO_CONTROL, 1)
