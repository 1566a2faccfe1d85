"""Writes all mutants of a list of cargo-mutants into the sources at once, each behind a switch.

`a < b` becomes `(if crate::mutant::is_on(7) {a == b} else {a < b})`, a function begins with `if crate::mutant::is_on(8) { return
Ok(()); }`, an arm of a match has a guard. So one build has them all, and a run tries one.
"""

import collections
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import tree_sitter
import tree_sitter_rust

PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_rust.language()))
ROOTS = ("src/lib.rs", "src/bin/udgram/main.rs")
OPERATIONS = {"binary_expression", "compound_assignment_expr", "unary_expression"}
FIELDS = {"field_initializer", "shorthand_field_initializer"}
NODES = {
    "BinaryOperator": OPERATIONS,
    "UnaryOperator": OPERATIONS,
    "MatchArm": {"match_arm"},
    "MatchArmGuard": {"match_arm"},
    "StructField": FIELDS,
}


@dataclass
class Mutant:
    number: int
    file: str
    genre: str
    name: str
    replacement: str
    span: dict

    def identity(self, checkout):
        """Returns the name without the position, and the line of the source."""
        line = (checkout / self.file).read_text().splitlines()[self.span["start"]["line"] - 1]
        return re.sub(r":\d+:\d+:", ":", self.name, count=1), line.strip()

    @property
    def switch(self):
        return f"crate::mutant::is_on({self.number})".encode()


def read_list(path):
    """Returns the mutants of the output of `cargo mutants --list --json`, numbered from 1."""
    return [
        Mutant(number, m["file"], m["genre"], m["name"], m["replacement"], m["span"])
        for number, m in enumerate(json.loads(Path(path).read_text()), 1)
    ]


def is_constant(node):
    """Returns whether the compiler evaluates the node: no switch can be read there."""
    while node is not None:
        if node.type in ("const_item", "static_item", "array_type", "const_block"):
            return True
        if node.type == "function_item" and any(
            child.type == "function_modifiers" and b"const" in child.text for child in node.children
        ):
            return True
        node = node.parent
    return False


class Source:
    """A source file with its mutants: `text` has them, `ranges` their places in it, `left` those without a place."""

    def __init__(self, data, mutants):
        self.data = data
        self.text = bytearray()
        self.ranges = collections.defaultdict(list)
        self.left = []
        self.matches = []
        self.at_node = collections.defaultdict(list)
        self.at_start = collections.defaultdict(list)
        self.lines = [0] + [at + 1 for at, byte in enumerate(data) if byte == 10]
        # The nodes are compared by their ids, which are valid as long as the tree is.
        self.tree = PARSER.parse(data)
        for mutant in mutants:
            if not self.place(mutant):
                self.left.append(mutant)
        self.children(self.tree.root_node, 0, len(data))

    def offset(self, position):
        start = self.lines[position["line"] - 1]
        line = self.data[start:].split(b"\n", 1)[0].decode()
        return start + len(line[: position["column"] - 1].encode())

    def place(self, mutant):
        """Finds the node that the mutant changes. Returns whether there is one."""
        mutant.start = self.offset(mutant.span["start"])
        mutant.end = self.offset(mutant.span["end"])
        end = mutant.start + 1 if mutant.genre == "StructField" else mutant.end
        node = self.tree.root_node.descendant_for_byte_range(mutant.start, end)
        if is_constant(node):
            return False
        if mutant.genre == "FnValue":
            while node is not None and not (
                node.type == "block" and node.parent.type == "function_item" and node.start_byte < mutant.start
            ):
                node = node.parent
            returned = node and node.parent.child_by_field_name("return_type")
            # A function that returns `impl Trait` returns one type.
            if node is None or returned is not None and returned.text.startswith(b"impl "):
                return False
            self.at_start[node.start_byte + 1].append(mutant)
            return True
        while node is not None and node.type not in NODES[mutant.genre]:
            node = node.parent
        if node is None:
            return False
        self.at_node[node.id].append(mutant)
        return True

    def put(self, *pieces):
        for piece in pieces:
            self.text += piece

    def put_mutant(self, mutant, *pieces):
        """Puts text that is the mutant's alone: an error of the compiler in it is its error."""
        start = len(self.text)
        self.put(*pieces)
        self.ranges[mutant.number].append((start, len(self.text)))

    def raw(self, start, end):
        """Puts text between nodes, and at the start of a function what it may return."""
        for at in sorted(at for at in self.at_start if start <= at <= end):
            self.put(self.data[start:at])
            start = at
            for mutant in self.at_start.pop(at):
                self.put(b" if ", mutant.switch, b" { return ")
                self.put_mutant(mutant, mutant.replacement.encode())
                self.put(b"; }")
        self.put(self.data[start:end])

    def children(self, node, start, end):
        """Puts a part of a node with the mutants of its children."""
        for child in node.children:
            if child.start_byte < start:
                continue
            if child.start_byte >= end:
                break
            self.raw(start, child.start_byte)
            self.node(child)
            start = child.end_byte
        self.raw(start, end)

    def node(self, node):
        mutants = self.at_node.get(node.id, [])
        if node.type == "match_expression":
            start = len(self.text)
            self.children(node, node.start_byte, node.end_byte)
            arms = node.child_by_field_name("body").children
            arms = [m.number for arm in arms for m in self.at_node.get(arm.id, []) if m.genre == "MatchArm"]
            self.matches.append((start, len(self.text), arms))
        elif not mutants:
            self.children(node, node.start_byte, node.end_byte)
        elif node.type in OPERATIONS:
            self.operation(node, mutants)
        elif node.type in FIELDS:
            self.field(node, mutants[0])
        else:
            self.arm(node, mutants)

    def operation(self, node, mutants):
        # A compound assignment stands where a statement does: a block, which needs no value.
        opening, closing = (b"({", b"})") if node.type == "compound_assignment_expr" else (b"(", b")")
        self.put(opening)
        for mutant in mutants:
            self.put(b"if ", mutant.switch, b" {")
            before, after = self.data[node.start_byte : mutant.start], self.data[mutant.end : node.end_byte]
            self.put_mutant(mutant, before, mutant.replacement.encode(), after)
            self.put(b"} else ")
        self.put(b"{")
        self.children(node, node.start_byte, node.end_byte)
        self.put(b"}", closing)

    def arm(self, node, mutants):
        pattern = node.child_by_field_name("pattern")
        condition = pattern.child_by_field_name("condition")
        self.put(self.data[node.start_byte : pattern.start_byte])
        end = condition.start_byte if condition else pattern.end_byte
        self.put(self.data[pattern.start_byte : end], b"" if condition else b" if ")
        for mutant in mutants:
            if mutant.genre == "MatchArm":
                self.put_mutant(mutant, b"!", mutant.switch)
                self.put(b" && " if condition else b"")
        if condition:
            self.put(b"(")
            for mutant in mutants:
                if mutant.genre == "MatchArmGuard":
                    always = mutant.replacement == "true"
                    self.put_mutant(mutant, b"" if always else b"!", mutant.switch)
                    self.put(b" || " if always else b" && ")
            self.put(b"(")
            self.node(condition)
            self.put(b"))")
        self.children(node, pattern.end_byte, node.end_byte)

    def field(self, node, mutant):
        """Takes the field from the base: `name: (if … {(base).name} else {value})`."""
        expression = node.parent.parent
        base = next(child for child in node.parent.children if child.type == "base_field_initializer")
        base = base.text.lstrip(b".").strip()
        if base == b"Default::default()":
            base = expression.child_by_field_name("name").text + b"::default()"
        shorthand = node.type == "shorthand_field_initializer"
        name = node.text if shorthand else node.child_by_field_name("field").text
        self.put(name, b": (if ", mutant.switch, b" {")
        self.put_mutant(mutant, b"(", base, b").", name)
        self.put(b"} else {")
        if shorthand:
            self.put(name)
        else:
            self.node(node.child_by_field_name("value"))
        self.put(b"})")


class Program:
    """The instrumented copy of a checkout."""

    def __init__(self, checkout, copy, mutants):
        self.checkout, self.copy, self.mutants = Path(checkout), Path(copy), mutants
        self.unviable = set()
        self.switch = (Path(__file__).with_name("switch.rs")).read_text()
        self.switch = self.switch.replace("NOTES_LENGTH", str(len(mutants) + 1))

    def write(self):
        """Writes the sources with all mutants that have compiled so far."""
        by_file = collections.defaultdict(list)
        for mutant in self.mutants:
            if mutant.number not in self.unviable:
                by_file[mutant.file].append(mutant)
        self.ranges, self.matches, self.left = {}, {}, []
        for path in (self.checkout / "src").rglob("*.rs"):
            name = str(path.relative_to(self.checkout))
            source = Source(path.read_bytes(), by_file[name])
            self.ranges[name], self.matches[name] = source.ranges, source.matches
            self.left += source.left
            if name in ROOTS:
                source.put(self.switch.encode())
            target = self.copy / name
            # cargo compiles what is newer.
            if not target.exists() or target.read_bytes() != bytes(source.text):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.text)

    def compile(self):
        """Leaves out the mutants that do not compile, and returns those that do."""
        while True:
            self.write()
            check = subprocess.run(
                ["cargo", "check", "--all-features", "--lib", "--bins", "--message-format=json"],
                cwd=self.copy, env=environment(), stdout=subprocess.PIPE, check=False, text=True,
            )
            if check.returncode == 0:
                tried = {n for ranges in self.ranges.values() for n in ranges}
                return [m for m in self.mutants if m.number in tried]
            found = set()
            for line in check.stdout.splitlines():
                message = json.loads(line).get("message", {})
                if message.get("level") == "error":
                    found |= self.mutants_of(message)
            if not found - self.unviable:
                raise SystemExit("the instrumented program does not compile:\n" + check.stdout)
            self.unviable |= found

    def mutants_of(self, error):
        """Returns the numbers of the mutants that an error of the compiler is about."""
        for span in sorted(error["spans"], key=lambda span: not span["is_primary"]):
            file, start, end = span["file_name"], span["byte_start"], span["byte_end"]
            found = {
                number
                for number, ranges in self.ranges.get(file, {}).items()
                if any(first <= start and end <= last for first, last in ranges)
            }
            if not found and code_of(error) == "E0004":
                # Without one of its arms, the innermost match is not exhaustive.
                around = [m for m in self.matches[file] if m[0] <= start and end <= m[1]]
                found = set(min(around, key=lambda m: m[1] - m[0])[2])
            if found:
                return found
        # The length of an array, for instance, is an expression for the compiler; rustc shows the line.
        return {int(number) for number in re.findall(r"mutant::is_on\((\d+)\)", error["rendered"])}


def code_of(error):
    return (error["code"] or {}).get("code")


def environment():
    """Returns the environment of a build: the mutants are not warned of."""
    return os.environ | {"RUSTFLAGS": "--cap-lints allow", "CARGO_PROFILE_DEV_DEBUG": "0"}
