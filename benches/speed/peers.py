"""The contenders in Python: a plain socket loop and the client of EasyNetwork.

peers.py socket|easynetwork receive|send|echo|one ADDRESS [COUNT|PACKET]
"""

import json
import socket
import sys


class SocketLoop:
    """A loop written by hand: bytes in, bytes out, flushed when the queue is empty."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def receive(self, address, count):
        self.socket.bind(address)
        buffer = memoryview(bytearray(8 << 20))
        out = sys.stdout.buffer
        for _ in range(int(count)):
            try:
                size = self.socket.recv_into(buffer, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                out.flush()
                size = self.socket.recv_into(buffer)
            out.write(buffer[:size])
            out.write(b"\n")

    def send(self, address):
        self.socket.connect(address)
        for line in sys.stdin.buffer:
            self.socket.send(line[:-1])

    def echo(self, address):
        self.socket.bind(address)
        while True:
            self.socket.sendto(*self.socket.recvfrom(1 << 16))

    def one(self, address, packet):
        self.socket.sendto(packet.encode(), address)


class EasyNetwork:
    """The same with EasyNetwork, whose client has one peer, given in advance."""

    def client(self, peer, local=""):
        from easynetwork.clients.unix_datagram import UnixDatagramClient
        from easynetwork.protocol import DatagramProtocol
        from easynetwork.serializers import JSONSerializer

        return UnixDatagramClient(peer, DatagramProtocol(JSONSerializer()), local_path=local)

    def packets(self, client, count):
        while count > 0:
            for packet in client.iter_received_packets(timeout=0):
                yield packet
                count -= 1
            if count > 0:
                sys.stdout.flush()
                yield client.recv_packet()
                count -= 1

    def receive(self, address, count):
        encode = json.JSONEncoder(separators=(",", ":")).encode
        with self.client(address + ".peer", address) as client:
            for packet in self.packets(client, int(count)):
                sys.stdout.write(encode(packet) + "\n")

    def send(self, address):
        with self.client(address) as client:
            for line in sys.stdin:
                client.send_packet(json.loads(line))

    def echo(self, address):
        with self.client(address + ".peer", address) as client:
            while True:
                client.send_packet(client.recv_packet())

    def one(self, address, packet):
        with self.client(address) as client:
            client.send_packet(json.loads(packet))


peer = {"socket": SocketLoop, "easynetwork": EasyNetwork}[sys.argv[1]]()
getattr(peer, sys.argv[2])(*sys.argv[3:])
