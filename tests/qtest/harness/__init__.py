# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of ferry-vmm share: processes, QMP, qtest, PCI. See docs/devel/qtest.rst."""
