# SPDX-License-Identifier: BSD-2-Clause
"""The scripts that fit the booted kernel, one after the other; each finds the devices just loaded."""

import pathlib
import subprocess
import sys

import vfio

HERE = pathlib.Path(__file__).resolve().parent
STOCK = ("smoke", "conformance", "migrate", "outside", "failures", "interrupted")
PASSTHROUGH = ("passthrough",)
# Guests where all writers of memory are tracked: then it shows when one of them is not.
IOMMUFD = ("smoke", "conformance", "tracked", "nodes", "outside", "guests")
MODULE = "/lib/modules/ferry-vfio-testdev.ko"
DEVICES = 4

if "intel_iommu=on" in pathlib.Path("/proc/cmdline").read_text():
    scripts = PASSTHROUGH
elif vfio.has_iommufd():
    scripts = IOMMUFD
else:
    scripts = STOCK
status = 0
for script in scripts:
    subprocess.run(["rmmod", "ferry_vfio_testdev"], check=True)
    subprocess.run(["insmod", MODULE, f"devices={DEVICES}"], check=True)
    status |= subprocess.run([sys.executable, HERE / f"{script}.py"], check=False).returncode
sys.exit(status)
