# SPDX-License-Identifier: BSD-2-Clause
"""-global migration.NAME=VALUE: each acts, which the stream or the monitor shows."""

import unittest

from harness.analyze import Stream
from harness.vmm import VmmTestCase

GLOBAL_STATE = ("globalstate", 0)


def preset(name, value):
    return ["-global", f"migration.{name}={value}"]


class Globals(VmmTestCase):
    def save(self, *args):
        """A VM, as saved to a file: (its path, the stream)."""
        vmm = self.vmm(*args, memory="1M")
        path = self.folder / f"stream{len(self.vmms)}"
        vmm.cmd("migrate", uri=f"file:{path}")
        vmm.wait_migration()
        return path, Stream(path.read_bytes())

    def load(self, path):
        vmm = self.vmm("-incoming", "defer", memory="1M")
        vmm.cmd("migrate-incoming", uri=f"file:{path}")
        vmm.wait_migration()
        return vmm

    def shown(self, vmm):
        lines = vmm.qmp.hmp("info migrate").splitlines()
        return dict(line.split(": ") for line in lines[1:7])

    def test_long_form(self):
        vmm = self.vmm("-global", "driver=migration,property=x-events,value=on",
                       "-global", "driver=migration,property=downtime-limit,value=77")
        self.assertEqual(vmm.cmd("query-migrate-parameters")["downtime-limit"], 77)
        self.assertIn({"capability": "events", "state": True},
                      vmm.cmd("query-migrate-capabilities"))

    def test_by_default_all_is_sent(self):
        _, stream = self.save()
        self.assertEqual(len(stream.commands), 1)
        self.assertIn(GLOBAL_STATE, stream.described)
        shown = self.shown(self.vmms[-1])
        self.assertEqual((shown["send-switchover-start"], shown["store-global-state"]),
                         ("on", "on"))

    def test_switchover_start_is_left_out(self):
        path, stream = self.save(*preset("send-switchover-start", "off"))
        self.assertEqual(stream.commands, [])
        self.assertIn(GLOBAL_STATE, stream.described)
        self.assertEqual(self.shown(self.vmms[-1])["send-switchover-start"], "off")
        self.load(path).wait_run_state("running")

    def test_global_state_is_left_out_where_a_destination_assumes_it(self):
        path, stream = self.save(*preset("store-global-state", "off"))
        self.assertNotIn(GLOBAL_STATE, stream.described)
        self.assertNotIn("globalstate", [name for name, _, _ in stream.sections])
        self.assertEqual(self.shown(self.vmms[-1])["store-global-state"], "off")
        self.load(path).wait_run_state("running")

    def test_global_state_is_sent_where_it_is_needed(self):
        path, stream = self.save("-S", *preset("store-global-state", "off"))
        self.assertIn(GLOBAL_STATE, stream.described)
        self.load(path).wait_run_state("prelaunch")

    def test_the_form_of_switchover_ack(self):
        with self.pair(*preset("switchover-ack-legacy", "on")) as (src, dst):
            for vmm in (src, dst):
                vmm.set_capabilities("return-path", "switchover-ack")
            uri = f"unix:{self.folder}/m"
            dst.cmd("migrate-incoming", uri=uri)
            src.cmd("migrate", uri=uri)
            src.wait_migration()
            dst.wait_run_state("running")
        status, log = self.vmm_that_fails(*preset("switchover-ack-legacy", "off"))
        self.assertEqual(status, 1)
        self.assertIn("migration.switchover-ack-legacy=off", log)

    def test_capabilities_and_parameters(self):
        vmm = self.vmm(*preset("x-events", "on"), *preset("downtime-limit", 77),
                       *preset("max-bandwidth", "1M"), *preset("x-return-path", "on"))
        on = {entry["capability"] for entry in vmm.cmd("query-migrate-capabilities")
              if entry["state"]}
        self.assertEqual(on, {"events", "return-path"})
        parameters = vmm.cmd("query-migrate-parameters")
        self.assertEqual((parameters["downtime-limit"], parameters["max-bandwidth"]),
                         (77, 1 << 20))

    def test_what_can_only_be_as_it_is_may_be_said(self):
        before = self.vmm().cmd("query-migrate-parameters")
        same = {"multifd-channels": 2, "announce-initial": 50, "multifd-compression": "none",
                "mode": "normal", "zero-page-detection": "multifd", "tls-creds": "",
                "direct-io": "off", "x-checkpoint-delay": 20000, "send-configuration": "on",
                "send-section-footer": "on", "xbzrle-cache-size": "64M", "x-zero-blocks": "on"}
        vmm = self.vmm(*(word for name, value in same.items() for word in preset(name, value)),
                       *preset("cpu-throttle-tailslow", "on"),
                       *preset("x-cpu-throttle-initial", 30))
        self.assertEqual(vmm.cmd("query-migrate-parameters"),
                         before | {"cpu-throttle-tailslow": True, "cpu-throttle-initial": 30})

    def test_refused_in_the_words_of_migrate_set_parameters(self):
        for name, value, text in (
                ("xbzrle-cache-size", "128M", "Parameter 'xbzrle-cache-size' is not supported"),
                ("multifd-channels", 0, "'multifd_channels' expects a value between 1 and 255"),
                ("multifd-channels", 256, "Parameter 'multifd-channels' expects uint8_t"),
                ("multifd-compression", "qpl", "does not accept value 'qpl'"),
                ("multifd-zstd-level", 21,
                 "'multifd_zstd_level' expects a value between 0 and 20"),
                ("mode", "cpr-reboot", "Parameter 'mode' is not supported"),
                ("direct-io", "on", "Parameter 'direct-io' is not supported"),
                ("tls-creds", "tls0", "Parameter 'tls-creds' is not supported"),
                ("x-max-cpu-throttle", 100, "expects an integer in the range of"),
                ("send-configuration", "off", "only on"),
                ("send-section-footer", "off", "only on")):
            with self.subTest(f"{name}={value}"):
                status, log = self.vmm_that_fails(*preset(name, value))
                self.assertEqual(status, 1)
                self.assertIn(text, log)

    def test_others_are_refused_by_name(self):
        for name, value in (("warp", 9), ("x-events", "maybe"), ("downtime-limit", 2000001),
                            ("send-switchover-start", 2), ("x-xbzrle", "on")):
            with self.subTest(name):
                status, log = self.vmm_that_fails(*preset(name, value))
                self.assertEqual(status, 1)
                self.assertIn(name.removeprefix("x-").replace("-", "_"), log.replace("-", "_"))


if __name__ == "__main__":
    unittest.main()
