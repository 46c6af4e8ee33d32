# SPDX-License-Identifier: MIT
"""For gdb: views as rows, results as their value or failure, weights as tensors, short backtraces.

In gdb or in ~/.gdbinit: source PATH/tools/gdb/linnet.py
"""

import re

import gdb
import gdb.printing
from gdb.FrameDecorator import FrameDecorator

SHOWN = 4  # values of a tensor


def short(name):
    """A type's name without namespaces, cut where it becomes long."""
    name = re.sub(r"\b[A-Za-z_]\w*::", "", str(name))
    return name if len(name) <= 60 else name[:60].rstrip() + "..."


def text(value):
    """A std::string, without the quotation marks of its own printer."""
    shown = gdb.default_visualizer(value).to_string()
    return shown.value().string() if hasattr(shown, "value") else str(shown)


class View:
    """view [2, 3]: its rows."""

    def __init__(self, value):
        self.data, self.rows = value["data_"], int(value["rows_"])
        self.columns = int(value.type.strip_typedefs().template_argument(1))

    def to_string(self):
        return f"view [{self.rows}, {self.columns}]"

    def children(self):
        if not self.data or self.columns < 1:
            return
        row = self.data.type.target().array(self.columns - 1).pointer()
        for i in range(self.rows):
            yield str(i), (self.data + i * self.columns).cast(row).dereference()

    def display_hint(self):
        return "array"


class Error:
    """One line, as message() gives it, behind the code."""

    def __init__(self, value):
        self.value = value

    def to_string(self):
        where, what, expected, got = (text(self.value[m]) for m in ("where", "what", "expected", "got"))
        line = ": ".join(part for part in (where, what) if part)
        wanted = ", ".join(f"{word} {part}" for word, part in (("expected", expected), ("got", got))
                           if part)
        code = str(self.value["code"]).split("::")[-1]
        return f"{code}: " + ": ".join(part for part in (line, wanted) if part)


class Result:
    """The value, or the failure."""

    def __init__(self, value):
        self.value = value
        if str(value.type.strip_typedefs().template_argument(0)) == "void":
            payload = value["failure_"]["_M_payload"]
            self.succeeded = not payload["_M_engaged"]
            self.held = None if self.succeeded else payload["_M_payload"]["_M_value"]
        else:
            self.succeeded = bool(value["succeeded_"])
            self.held = value["value_" if self.succeeded else "failure_"]

    def to_string(self):
        return "success" if self.succeeded else "failure, " + Error(self.held).to_string()

    def children(self):
        if self.succeeded and self.held is not None:
            yield "value", self.held


class Block:
    """weights, gradients or packed weights: the tensors by their members' names."""

    def __init__(self, value):
        self.kind = short(value.type.strip_typedefs().name).split("<")[0]
        self.model = short(value.type.strip_typedefs().template_argument(0))
        self.block = value[value.type.strip_typedefs().fields()[0]]  # its base, tensor_block
        values = self.block["values_"]
        self.bytes = int(values["_M_extent"]["_M_extent_value"]) if values["_M_ptr"] else 0

    def valid(self):
        return self.bytes > 0

    def to_string(self):
        if self.valid():
            return f"{self.kind} of {self.model}, {self.bytes} bytes"
        if self.block["failed_"]:
            why = Error(self.block["failure_"]).to_string()
        else:
            why = "not enough memory" if self.block["lacks_memory_"] else "moved from"
        return f"{self.kind} of {self.model}, invalid: {why}"

    def children(self):
        return tensors(self.block["tree_"], "") if self.valid() else iter(())


def tensors(value, name):
    """(name, text) of each pointer to values in a tree of parameters, in the order of its members."""
    type = value.type.strip_typedefs()
    if type.code == gdb.TYPE_CODE_PTR:
        if value:
            yield name, first_values(value)
    elif type.code == gdb.TYPE_CODE_ARRAY:
        for i in range(type.range()[0], type.range()[1] + 1):
            yield from tensors(value[i], f"{name}[{i}]")
    elif type.code == gdb.TYPE_CODE_STRUCT:
        for field in type.fields():
            if hasattr(field, "bitpos"):  # not static
                inner = name + part_of_name(field)
                yield from tensors(value[field], inner.lstrip("."))


def part_of_name(field):
    """What a member adds to a tensor's name; wrappers add nothing, parts of a chain their number."""
    if field.is_base_class:
        part = re.search(r"\bnumbered<(\d+)", str(field.type))
        return f"[{part[1]}]" if part else ""
    return "" if field.name in ("items", "value", "data", "sub") else "." + field.name


def first_values(pointer):
    target = pointer.type.strip_typedefs().target().strip_typedefs().unqualified()
    if target.sizeof == 1 and target.code == gdb.TYPE_CODE_INT:  # numbers, not characters
        show = int
    else:
        show = lambda value: value.format_string(max_elements=SHOWN)
    shown = ", ".join(str(show(pointer[i])) for i in range(SHOWN))
    return f"{short(target)} {{{shown}, ...}}"


def of_value(printer):
    """The printer of a value, also behind a reference, as arguments of functions are."""
    def of(value):
        is_reference = value.type.strip_typedefs().code == gdb.TYPE_CODE_REF
        return printer(value.referenced_value() if is_reference else value)
    return of


def printers():
    collection = gdb.printing.RegexpCollectionPrettyPrinter("linnet")
    for name, printer in (("view", View), ("error", Error), ("result", Result), ("weights", Block),
                          ("gradients", Block), ("packed", Block)):
        collection.add_printer(name, rf"^linnet::v\d+_\w+::{name}(<.*>)?$", of_value(printer))
    return collection


def short_function(name):
    """A function's name without linnet's namespace, and without arguments of templates if it is long."""
    name = re.sub(r"\blinnet::v\d+_\w+::", "", name)
    if len(name) <= 80:
        return name
    shown, depth = "", 0
    for i, letter in enumerate(name):
        if letter == "<" and not name[:i].endswith("operator"):
            shown += "" if depth else "<...>"
            depth += 1
        elif letter == ">" and depth and name[i - 1] != "-":
            depth -= 1
        elif not depth:
            shown += letter
    return shown


class Frame(FrameDecorator):
    def function(self):
        name = self.inferior_frame().name()
        return super().function() if name is None else short_function(name)


class Frames:
    """A backtrace whose names fit on a line; `bt -no-filters` has them whole."""

    def __init__(self):
        self.name, self.enabled, self.priority = "linnet", True, 100
        gdb.frame_filters[self.name] = self

    def filter(self, frames):
        return map(Frame, frames)


Frames()
gdb.printing.register_pretty_printer(gdb.current_objfile(), printers(), replace=True)
