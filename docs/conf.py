# SPDX-License-Identifier: BSD-2-Clause
"""Sphinx configuration. Stock theme, stock extensions, nothing fetched from a network."""

from pathlib import Path

project = "Ferry"
author = "the Ferry maintainers"
copyright = "the Ferry maintainers"  # noqa: A001 - the name Sphinx wants
release = (Path(__file__).parent.parent / "VERSION").read_text(encoding="utf-8").strip()
version = ".".join(release.split(".")[:2])

extensions = []
exclude_patterns = ["_build"]
primary_domain = None
highlight_language = "none"
nitpicky = True

html_theme = "alabaster"
html_theme_options = {"page_width": "1100px", "sidebar_width": "220px", "fixed_sidebar": "true"}
html_show_sourcelink = False
html_copy_source = False

# One page for each program, out of its page in docs/tools.
man_pages = [
    ("tools/ferry-vmm", "ferry-vmm", "hypervisor whose VMs live-migrate", author, 1),
    ("tools/ferryctl", "ferryctl", "controls and migrates a VM by its QMP monitor", author, 1),
    ("tools/ferry-stream", "ferry-stream", "prints and checks migration streams", author, 1),
    ("tools/ferry-memcmp", "ferry-memcmp", "compares the memory of VMs from outside", author, 1),
]
man_show_urls = False
