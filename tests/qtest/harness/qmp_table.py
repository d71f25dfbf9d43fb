# SPDX-License-Identifier: BSD-2-Clause
"""Tables of requests and what must come back: how rows are written and checked.

    ROWS = [("query-status", {}, Is({"running": True, "status": "running"})),
            ("no-such", {}, Refused("The command no-such has not been found", NOT_FOUND))]
"""

import json

from .qmp import QmpError
from .qmp_schema import QmpSchema
from .vmm import VmmTestCase

GENERIC, NOT_FOUND, NO_DEVICE = "GenericError", "CommandNotFound", "DeviceNotFound"


class Refused:
    """The expected outcome: an error of this class with this text (or texts that it contains)."""

    def __init__(self, text, error_class=GENERIC, parts=()):
        self.text, self.error_class, self.parts = text, error_class, parts

    def check(self, case, outcome, value):
        case.assertEqual(outcome, "error", f"accepted: {value}")
        case.assertEqual(value["class"], self.error_class)
        if self.text is not None:
            case.assertEqual(value["desc"], self.text)
        for part in self.parts:
            case.assertIn(part, value["desc"])


class Is:
    """The expected outcome: a value of this shape. dict: exactly these members ("name?" may be
    absent); list: of that; set: one of these; type; or the value itself."""

    def __init__(self, shape):
        self.shape = shape

    def check(self, case, outcome, value):
        case.assertEqual(outcome, "return", f"refused: {value}")
        self._match(case, self.shape, value, "return")

    def _match(self, case, shape, value, where):
        if isinstance(shape, dict):
            case.assertIsInstance(value, dict, where)
            names = {name.rstrip("?") for name in shape}
            case.assertLessEqual(set(value), names, f"{where}: members nobody asked for")
            for name, inner in shape.items():
                if not name.endswith("?"):
                    case.assertIn(name, value, where)
                plain = name.rstrip("?")
                if plain in value:
                    self._match(case, inner, value[plain], f"{where}.{plain}")
        elif isinstance(shape, list):
            case.assertIsInstance(value, list, where)
            for index, item in enumerate(value):
                self._match(case, shape[0], item, f"{where}[{index}]")
        elif isinstance(shape, set):
            case.assertIn(value, shape, where)
        elif isinstance(shape, type):
            case.assertIs(type(value), shape, where)
        elif callable(shape):
            case.assertTrue(shape(value), f"{where}: {value}")
        else:
            case.assertEqual(value, shape, where)


DONE = Is({})


def number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# What arguments are, with a value that has the right type, and wrong ones with their texts.
def wrong(name, expected):
    return f"Invalid parameter type for '{name}', expected: {expected}"


class Kind:
    def __init__(self, good, bad):
        self.good, self.bad = good, bad  # bad: (value, text of the parameter's full name and leaf)


def typed(good, expected, *bad):
    return Kind(good, [(value, lambda name: wrong(name, expected)) for value in bad])


def limited(good, ctype, *too_large):
    kind = typed(good, "integer", "7", True, None, [])
    kind.bad += [(value, lambda name: f"Parameter '{name}' expects {ctype}") for value in too_large]
    return kind


def one_of(*names):
    kind = typed(names[0], "string", 7, True, None, {})
    kind.bad.append(("nonsense",
                     lambda name: f"Parameter '{name}' does not accept value 'nonsense'"))
    return kind


TEXT = typed("x", "string", 7, True, None, [], {})
BOOL = typed(True, "boolean", 1, "true", None, [])
INT = typed(1, "integer", "1", True, None, [], {})
UINT8 = limited(1, "uint8_t", 256, -1)
UINT32 = limited(1, "uint32_t", 1 << 32, -1)
UINT64 = limited(1, "uint64", 1.5)
ARRAY = typed([], "array", {}, "x", 7, None)
TEXT_OR_NULL = typed("", "StrOrNull", 7, True, [])
STATUS = one_of("none", "setup", "cancelling", "cancelled", "active", "postcopy-active",
                "postcopy-paused", "postcopy-recover-setup", "postcopy-recover", "completed",
                "failed", "colo", "pre-switchover", "device", "wait-unplug")
UNITS = one_of("second", "millisecond")


# The rest of their arguments is not told: it depends on the first ones.
OPEN_ARGUMENTS = ("device_add", "object-add")


class TableTestCase(VmmTestCase):
    """What is answered, and what is accepted, must be what query-qmp-schema tells."""

    schema = None  # the same of every process

    def outcome(self, vmm, command, arguments):
        try:
            value = vmm.cmd(command, arguments)
        except QmpError as error:
            return "error", {"class": error.error_class, "desc": error.desc}
        self._check_schema(vmm, command, arguments, value)
        return "return", value

    def _check_schema(self, vmm, command, arguments, value):
        if command == "quit":
            return
        if TableTestCase.schema is None:
            TableTestCase.schema = QmpSchema(vmm.cmd("query-qmp-schema"))
        self.assertEqual(self.schema.faults_of_reply(command, value), [])
        if command not in OPEN_ARGUMENTS:
            self.assertEqual(self.schema.faults_of_arguments(command, arguments), [])
        for event in vmm.qmp.events:
            self.assertEqual(self.schema.faults_of_event(event), [])

    def check(self, vmm, rows):
        for number_, (command, arguments, expected) in enumerate(rows):
            shown = json.dumps(arguments)[:200]
            with self.subTest(f"row {number_}: {command} {shown}"):
                expected.check(self, *self.outcome(vmm, command, arguments))
