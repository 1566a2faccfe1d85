"""A second implementation of what the manual promises of `send`, `recv` and `iter`, in Python.

It opens no socket. From the arguments, the standard input and the datagrams in the queue it computes the
exit status, the standard output and the datagrams sent. It also invents the cases: `reference.py SEED COUNT`
prints one JSON object a line, with byte strings in base64. tests/cli/oracle.rs runs udgram on each case and
compares. Both follow the manual, and neither knows the other's code.
"""

import base64
import json
import random
import re
import sys

SUCCESS, USAGE, PARSE, TIMED_OUT = 0, 2, 3, 124
SPACE = b" \t\n\r"
NUMBER = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
STRING = re.compile(rb'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
LITERAL = re.compile(rb"true|false|null")


class Invalid(Exception):
    """Bytes or a line that are not a valid packet."""


def utf8(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid from error


class JsonText:
    """One JSON text (RFC 8259). `line` is the same text without line breaks between tokens."""

    def __init__(self, data):
        utf8(data)
        self.data, self.at, self.tokens = data, 0, []
        self.space()
        self.value()
        self.space()
        if self.at != len(data):
            raise Invalid

    def space(self):
        start = self.at
        while self.data[self.at : self.at + 1] and self.data[self.at] in SPACE:
            self.at += 1
        self.tokens.append(self.data[start : self.at].translate(None, b"\r\n"))

    def take(self, pattern):
        found = pattern.match(self.data, self.at)
        if not found:
            raise Invalid
        self.at = found.end()
        self.tokens.append(found.group())

    def character(self, characters):
        found = self.data[self.at : self.at + 1]
        if not found or found not in characters:
            raise Invalid
        self.at += 1
        self.tokens.append(found)
        return found

    def value(self):
        first = self.data[self.at : self.at + 1]
        if first == b"{":
            self.items(b"{", b"}", self.member)
        elif first == b"[":
            self.items(b"[", b"]", self.value)
        elif first == b'"':
            self.take(STRING)
        elif first in (b"t", b"f", b"n"):
            self.take(LITERAL)
        else:
            self.take(NUMBER)

    def member(self):
        self.take(STRING)
        self.space()
        self.character([b":"])
        self.space()
        self.value()

    def items(self, opening, closing, item):
        self.character([opening])
        self.space()
        if self.data[self.at : self.at + 1] == closing:
            self.character([closing])
            return
        while True:
            item()
            self.space()
            if self.character([b",", closing]) == closing:
                return
            self.space()

    @property
    def line(self):
        return b"".join(self.tokens).strip(b" \t")


def without_space(line):
    return line.translate(None, b" \t\r\n\x0b\x0c")


def decode_hex(line):
    digits = without_space(line)
    if len(digits) % 2 or re.search(rb"[^0-9a-fA-F]", digits):
        raise Invalid
    return bytes.fromhex(digits.decode())


def decode_base64(line):
    line = without_space(line)
    if not re.fullmatch(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", line):
        raise Invalid
    data = base64.b64decode(line)
    # The unused bits of the last digit are zero, so each byte string has one encoding.
    if base64.b64encode(data) != line:
        raise Invalid
    return data


def checked_text(data):
    utf8(data)
    return data


def from_line(protocol, line):
    """Returns the datagram of a line or an argument."""
    decoders = {
        "json": lambda data: JsonText(data).line,
        "text": checked_text,
        "raw": bytes,
        "hex": decode_hex,
        "base64": decode_base64,
    }
    return decoders[protocol](line)


def to_line(protocol, datagram):
    """Returns the line of a datagram, without the line break that `recv` adds."""
    encoders = {
        "json": lambda data: JsonText(data).line,
        "text": checked_text,
        "raw": bytes,
        "hex": lambda data: data.hex().encode(),
        "base64": base64.b64encode,
    }
    return encoders[protocol](datagram)


def string(data):
    """Returns a JSON string with nothing escaped but what must be."""
    return json.dumps(utf8(data), ensure_ascii=False).encode()


def envelope(protocol, datagram):
    encoded = base64.b64encode(datagram).decode()
    head = b'{"from":null,"size":%d,' % len(datagram)
    try:
        line = to_line(protocol, datagram)
    except Invalid:
        return head + b'"error":{"kind":"parse"},"raw":"%s"}' % encoded.encode()
    packet = {"json": line, "text": None}.get(protocol, b'"%s"' % encoded.encode())
    return head + b'"packet":%s}' % (string(datagram) if packet is None else packet)


def from_envelope(protocol, line):
    """Returns the datagram of an envelope."""
    JsonText(line)
    pairs = json.loads(line, object_pairs_hook=list)
    # A list is an array or an object here; only the text shows which.
    if not line.lstrip(SPACE).startswith(b"{"):
        raise Invalid
    found = [(name, value) for name, value in pairs if name in ("packet", "raw")]
    if len(found) != 1:
        raise Invalid
    ((name, value),) = found
    if name == "packet" and protocol == "json":
        return re.fullmatch(rb'.*"packet": *(.*)}', line).group(1)
    if not isinstance(value, str):
        raise Invalid
    if name == "packet" and protocol == "text":
        return value.encode()
    return decode_base64(value.encode())


def send(protocol, envelopes, packets, stdin):
    """Returns the exit status and the datagrams sent."""
    if packets:
        lines = packets
    elif protocol == "raw" and not envelopes:
        lines = [stdin] if stdin else []
    else:
        lines = stdin.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
    if (protocol == "json" or envelopes) and not packets:
        lines = [line for line in lines if line.strip(SPACE)]
    sent = []
    for line in lines:
        try:
            sent.append((from_envelope if envelopes else from_line)(protocol, line))
        except Invalid:
            return PARSE, sent
    return SUCCESS, sent


def receive(protocol, queue, count, envelopes, short):
    """Returns the exit status and the output. `short` is the status if the queue has less than `count`."""
    status, output = SUCCESS, b""
    taken = queue if count is None else queue[:count]
    for datagram in taken:
        try:
            line = to_line(protocol, datagram)
        except Invalid:
            status = PARSE
            line = None
        if envelopes:
            output += envelope(protocol, datagram) + b"\n"
        elif line is not None:
            ends = protocol == "raw" or (protocol == "text" and line.endswith(b"\n"))
            output += line + (b"" if ends else b"\n")
    if count is not None and len(taken) < count:
        status = short
    return status, output


# The cases.

PIECES = [
    b"{", b"}", b"[", b"]", b":", b",", b'"a"', b'"\\u00e9"', b'"\xc3\xa9"', b'"\\ud800"', b'"\\x"', b'"\x01"', b"0", b"-0", b"01",
    b"1.50", b"-1e+9", b"1.", b".5", b"+1", b"12345678901234567890.10", b"true", b"nul", b"null", b"NaN", b" ", b"\t", b"\r",
    b"\xef\xbb\xbf", b"\xff", b"\x00", b"\x0b", b"\xc2\xa0",
]
VALUES = [
    b'{"a":1,"a":2}', b'[1, 2 ,\t3]', b'{"k":{"l":[]}}', b'"x"', b"17", b"-0.0", b"[[[[]]]]", b'{}', b"null",
    b' {"b" : "\\/" } ', b'{"\xf0\x9f\x98\x80":"\xe2\x80\xa8"}', b'"\x7f"',
]
TEXTS = [b"", b"hello", b" two  words ", b"ends\r", b"\xc3\xa9", b"\xff\xfe", b"a\x00b", b"\x1b[31m", b"\xed\xa0\x80", b"-x"]
HEX = [b"", b"00ff", b"0 0 F f", b"abc", b"zz", b"\t7a", b"0x00", b"c3A9"]
BASE64 = [b"", b"YQ==", b"YWI=", b"YWJj", b"YQ", b"YR==", b"Y Q==", b"_-==", b"=", b"YWJjZA=="]
ENVELOPES = [
    b'{"packet":"YQ=="}', b'{"packet": {"a": 1}}', b'{"raw":"AP8="}', b'{"raw":""}', b'{"raw":"%"}', b'{}', b'[]', b'"packet"',
    b'{"from":"/nowhere","size":-1,"packet":""}', b'{"packet":1,"raw":"YQ=="}', b'{"time":17,"packet":"YWI="}', b'{"packet":}',
    b'{"error":{"kind":"parse"},"raw":"YQ=="}',
]
PROTOCOLS = ["json", "text", "raw", "hex", "base64"]


def line_of(chance, protocol):
    if protocol == "json":
        if chance.random() < 0.3:
            return b"".join(chance.choices(PIECES, k=chance.randrange(5)))
        return chance.choice(VALUES)
    return chance.choice({"text": TEXTS, "raw": TEXTS, "hex": HEX, "base64": BASE64}[protocol])


def datagram_of(chance, protocol):
    if protocol == "json":
        break_ = chance.choice([b"", b"\n", b"\r\n"])
        return break_ + line_of(chance, "json").replace(b", ", b"," + break_) + break_
    return chance.choice([b"", b"\n", b"line\nline", b"text\n", b"\x00\xff", bytes(chance.choices(range(256), k=5)), *TEXTS])


def case(chance):
    protocol = chance.choice(PROTOCOLS)
    command = chance.choice(["send", "send", "recv", "iter"])
    if command == "send":
        envelopes = chance.random() < 0.2
        line = (lambda: chance.choice(ENVELOPES)) if envelopes else (lambda: line_of(chance, protocol))
        arguments, stdin = [], b""
        if chance.random() < 0.4:
            # An argument cannot contain a NUL.
            lines = (line() for _ in range(chance.randrange(1, 4)))
            arguments = [packet.replace(b"\x00", b"") for packet in lines]
        else:
            lines = [line() for _ in range(chance.randrange(5))]
            stdin = b"\n".join(lines) + chance.choice([b"", b"\n"])
        status, sent = send(protocol, envelopes, arguments, stdin)
        return {"command": ["send", "-p", protocol] + ["-e"] * envelopes, "packets": arguments, "stdin": stdin, "queue": [],
                "status": status, "stdout": b"", "sent": sent}
    queue = [datagram_of(chance, protocol) for _ in range(chance.randrange(5))]
    envelopes = chance.random() < 0.4
    options = ["-p", protocol] + (["-e"] if envelopes else [])
    if command == "recv":
        count = chance.randrange(1, 5)
        options += ["-t", "0", "-n", str(count)]
        short = TIMED_OUT
    else:
        count = chance.choice([None, 1, 2, 3])
        options += [] if count is None else ["-n", str(count)]
        short = None
    status, output = receive(protocol, queue, count, envelopes, short)
    if status is None:
        status, _ = receive(protocol, queue, None, envelopes, short)
    return {"command": [command, *options], "packets": [], "stdin": b"", "queue": queue,
            "status": status, "stdout": output, "sent": []}


def main():
    seed, count = map(int, sys.argv[1:])
    chance = random.Random(seed)

    def encode(value):
        return base64.b64encode(value).decode()

    for _ in range(count):
        invented = case(chance)
        for name in ["packets", "queue", "sent"]:
            invented[name] = [encode(value) for value in invented[name]]
        for name in ["stdin", "stdout"]:
            invented[name] = encode(invented[name])
        print(json.dumps(invented))


if __name__ == "__main__":
    main()
