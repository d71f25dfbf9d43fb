# SPDX-License-Identifier: BSD-2-Clause
"""What query-qmp-schema tells, as a client that believes it uses it: values are checked against the
type that they should have."""

JSON_TYPES = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "null": lambda value: value is None,
    "value": lambda value: True,
}


class QmpSchema:
    def __init__(self, entities):
        self.entities = {entity["name"]: entity for entity in entities}

    def of(self, name, meta_type):
        entity = self.entities[name]
        if entity["meta-type"] != meta_type:
            raise KeyError(f"{name} is a {entity['meta-type']}, not a {meta_type}")
        return entity

    def faults_of_reply(self, command, value):
        return list(self._faults(self.of(command, "command")["ret-type"], value, command))

    def faults_of_arguments(self, command, value):
        return list(self._faults(self.of(command, "command")["arg-type"], value, command))

    def faults_of_event(self, event):
        kind = self.of(event["event"], "event")["arg-type"]
        return list(self._faults(kind, event.get("data", {}), event["event"]))

    def _faults(self, name, value, where):
        entity = self.entities[name]
        yield from getattr(self, "_" + entity["meta-type"])(entity, value, where)

    def _builtin(self, entity, value, where):
        if not JSON_TYPES[entity["json-type"]](value):
            yield f"{where}: {value!r} is no {entity['json-type']}"

    def _enum(self, entity, value, where):
        if value not in [member["name"] for member in entity["members"]]:
            yield f"{where}: {value!r} is none of {entity['values']}"

    def _array(self, entity, value, where):
        if not isinstance(value, list):
            yield f"{where}: {value!r} is no list"
            return
        for index, item in enumerate(value):
            yield from self._faults(entity["element-type"], item, f"{where}[{index}]")

    def _alternate(self, entity, value, where):
        if all(list(self._faults(member["type"], value, where)) for member in entity["members"]):
            yield f"{where}: {value!r} is none of what it may be"

    def _object(self, entity, value, where):
        if not isinstance(value, dict):
            yield f"{where}: {value!r} is no object"
            return
        members = self._members(entity, value)
        for name in sorted(set(value) - set(members)):
            yield f"{where}: nobody told of '{name}'"
        for name, member in members.items():
            if name in value:
                yield from self._faults(member["type"], value[name], f"{where}.{name}")
            elif "default" not in member:
                yield f"{where}: '{name}' is missing"

    def _members(self, entity, value):
        members = {member["name"]: member for member in entity["members"]}
        for variant in entity.get("variants", []):
            if value.get(entity["tag"]) == variant["case"]:
                members |= self._members(self.entities[variant["type"]], value)
        return members
