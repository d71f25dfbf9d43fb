#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Turns the trace-events files into trace-points.h.  Usage: trace-gen.py OUTPUT INPUT...

An input line declares one trace point, in the order a reader of the trace will see it:

    vfio_migration_set_state(std::string_view name, std::string_view state) "({}) state {}"

'#' starts a comment line. Event names are unique over all inputs; the number of {} in the format is
the number of arguments. See docs/devel/tracing.rst.
"""

import re
import sys
from pathlib import Path

LINE = re.compile(r'(?P<name>[a-z][a-z0-9_]*)\s*\((?P<args>.*?)\)\s*"(?P<format>(?:[^"\\]|\\.)*)"')
ARGUMENT = re.compile(r"(?P<type>[A-Za-z_][\w:<>, ]*?[\s*&]+)(?P<name>[a-z_][a-z0-9_]*)")
PLACEHOLDER = re.compile(r"\{\{|\}\}|(\{[^{}]*\})|([{}])")
NAME_LENGTH_LIMIT = 80
EVENT_COUNT_LIMIT = 65535  # Event is a uint16_t


class BadLine(Exception):
    pass


def split_arguments(text):
    """Splits at the commas outside <...>, so that std::pair<int, int> is one type."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        if char == "<":
            depth += 1
        elif char == ">":
            depth -= 1
        elif char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part.strip() for part in parts]


def parse_arguments(text):
    text = text.strip()
    if text in ("", "void"):
        return []
    arguments = []
    for part in split_arguments(text):
        found = ARGUMENT.fullmatch(part)
        if not found:
            raise BadLine(f"argument '{part}' is not TYPE NAME")
        if found["name"] == "tracer":
            raise BadLine("'tracer' is the name of the generated first argument")
        if any(found["name"] == name for _, name in arguments):
            raise BadLine(f"argument '{found['name']}' appears twice")
        arguments.append((part, found["name"]))
    return arguments


def count_placeholders(text):
    count = 0
    for found in PLACEHOLDER.finditer(text):
        if found[2]:
            raise BadLine(f"unbalanced '{found[2]}' in the format; a literal one is doubled")
        count += found[1] is not None
    return count


def parse_line(line):
    found = LINE.fullmatch(line)
    if not found:
        raise BadLine('not of the form  event_name(TYPE name, ...) "format"')
    if len(found["name"]) > NAME_LENGTH_LIMIT:
        raise BadLine(f"event name longer than {NAME_LENGTH_LIMIT} characters")
    arguments = parse_arguments(found["args"])
    placeholders = count_placeholders(found["format"])
    if placeholders != len(arguments):
        raise BadLine(f"{len(arguments)} arguments but {placeholders} {{}} in the format")
    return found["name"], arguments, found["format"]


def read_events(paths):
    events, first_seen, problems = [], {}, []
    for path in paths:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(f"{path}: {error}")
            continue
        for number, line in enumerate(lines, start=1):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            try:
                event = parse_line(line)
                if event[0] in first_seen:
                    raise BadLine(f"event '{event[0]}' already stands at {first_seen[event[0]]}")
                first_seen[event[0]] = f"{path}:{number}"
                events.append(event)
            except BadLine as error:
                problems.append(f"{path}:{number}: {error}")
    if len(events) > EVENT_COUNT_LIMIT:
        problems.append(f"{len(events)} events; at most {EVENT_COUNT_LIMIT} fit")
    return events, problems


def camel_case(name):
    return "".join(word[0].upper() + word[1:] for word in name.split("_") if word)


def check_enumerators(events):
    """a_b1 and a_b_1 would become one enumerator."""
    seen, problems = {}, []
    for name, _, _ in events:
        other = seen.setdefault(camel_case(name), name)
        if other != name:
            problems.append(f"events '{other}' and '{name}' differ in underscores only")
    return problems


def render_function(name, arguments, text):
    parameters = "".join(f", {declaration}" for declaration, _ in arguments)
    values = "".join(f", {argument}" for _, argument in arguments)
    event = f"Event::{camel_case(name)}"
    return f"""
inline void {name}(const util::Tracer& tracer{parameters}) {{
    if (tracer.enabled(static_cast<std::size_t>({event}))) [[unlikely]] {{
        tracer.emit(kEventNames[static_cast<std::size_t>({event})], fmt::format("{text}"{values}));
    }}
}}
"""


def render(events):
    enumerators = "".join(f"    {camel_case(name)},\n" for name, _, _ in events)
    names = "".join(f'    "{name}",\n' for name, _, _ in events)
    functions = "".join(render_function(*event) for event in events)
    return f"""// SPDX-License-Identifier: BSD-2-Clause
// Generated by scripts/trace-gen.py from the trace-events files; do not edit.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "util/trace.h"

namespace ferry::trace {{

enum class Event : std::uint16_t {{
{enumerators}}};

inline constexpr std::array<std::string_view, {len(events)}> kEventNames = {{
{names}}};
{functions}
}}  // namespace ferry::trace
"""


def main(arguments):
    if len(arguments) < 2:
        sys.exit("usage: trace-gen.py OUTPUT INPUT...")
    output, *inputs = arguments
    events, problems = read_events(inputs)
    problems += check_enumerators(events)
    if problems:
        sys.exit("\n".join(problems))
    Path(output).write_text(render(events), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
