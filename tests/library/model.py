"""EasyNetwork as the peer of a test: model.py client|server sync|async json|cbor|msgpack ADDRESS."""

import asyncio
import json
import os
import signal
import socket
import sys

from easynetwork.clients.async_unix_datagram import AsyncUnixDatagramClient
from easynetwork.clients.unix_datagram import UnixDatagramClient
from easynetwork.lowlevel.request_handler import RecvAncillaryDataParams, RecvParams
from easynetwork.lowlevel.socket import SCMCredentials, SCMRights, SocketAncillary, SocketCredential
from easynetwork.protocol import DatagramProtocol
from easynetwork.serializers import CBORSerializer, JSONSerializer, MessagePackSerializer
from easynetwork.servers.async_unix_datagram import AsyncUnixDatagramServer
from easynetwork.servers.handlers import AsyncDatagramRequestHandler
from easynetwork.servers.standalone_unix_datagram import StandaloneUnixDatagramServer

# However the test ends, this ends.
signal.alarm(50)

ROLE, MODE, FORMAT, ADDRESS = sys.argv[1:]
SERIALIZERS = {"json": JSONSerializer, "cbor": CBORSerializer, "msgpack": MessagePackSerializer}
PROTOCOL = DatagramProtocol(SERIALIZERS[FORMAT]())
BLOB = "AP8=" if FORMAT == "json" else b"\x00\xff"


def say(**what):
    print(json.dumps(what), flush=True)


def outgoing():
    """A pipe's reading end with a text in it, and this process's credentials."""
    reader, writer = os.pipe()
    os.write(writer, b"from the model")
    os.close(writer)
    ancillary = SocketAncillary()
    ancillary.add_fds([reader])
    ancillary.add_creds([SocketCredential(os.getpid(), os.getuid(), os.getgid())])
    return ancillary, reader


def incoming(ancillary):
    """Writes to the descriptors that came, closes them, and gives the credentials."""
    credentials = []
    for message in ancillary.messages():
        match message:
            case SCMRights(descriptors):
                for descriptor in descriptors:
                    os.write(descriptor, b"through the model")
                    os.close(descriptor)
            case SCMCredentials(came):
                credentials = [list(one) for one in came]
    return credentials


class Handler(AsyncDatagramRequestHandler):
    async def service_init(self, exit_stack, server):
        for listener in server.get_sockets():
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    async def handle(self, client):
        ancillary = SocketAncillary()
        params = RecvAncillaryDataParams(data_received=ancillary.update_from_raw)
        request = yield RecvParams(recv_with_ancillary=params)
        reply = {"echo": request, "blob": BLOB, "credentials": incoming(ancillary)}
        ancillary, reader = outgoing()
        await client.send_packet_with_ancillary(reply, ancillary.as_raw())
        os.close(reader)


class Up:
    def set(self):
        say(pid=os.getpid())


def serve():
    server = StandaloneUnixDatagramServer(ADDRESS, PROTOCOL, Handler(), receive_ancillary_data=True)
    with server:
        server.serve_forever(is_up_event=Up())


async def serve_async():
    server = AsyncUnixDatagramServer(ADDRESS, PROTOCOL, Handler(), "asyncio", receive_ancillary_data=True)
    async with server:
        await server.serve_forever(is_up_event=Up())


GREETING = {"hello": "wörld", "blob": BLOB}


def call():
    with UnixDatagramClient(ADDRESS, PROTOCOL) as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ancillary, reader = outgoing()
        client.send_packet(GREETING, ancillary_data=ancillary)
        os.close(reader)
        ancillary = SocketAncillary()
        reply = client.recv_packet(ancillary_data=ancillary, timeout=30)
        credentials = incoming(ancillary)
        client.send_packet(reply)
        rest = []
        for packet in client.iter_received_packets(timeout=30):
            if packet is None:
                break
            rest.append(packet)
        say(pid=os.getpid(), credentials=credentials, rest=rest)


async def call_async():
    async with AsyncUnixDatagramClient(ADDRESS, PROTOCOL, "asyncio") as client:
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ancillary, reader = outgoing()
        await client.send_packet(GREETING, ancillary_data=ancillary)
        os.close(reader)
        ancillary = SocketAncillary()
        async with asyncio.timeout(30):
            reply = await client.recv_packet(ancillary_data=ancillary)
        credentials = incoming(ancillary)
        await client.send_packet(reply)
        rest = []
        async for packet in client.iter_received_packets(timeout=30):
            if packet is None:
                break
            rest.append(packet)
        say(pid=os.getpid(), credentials=credentials, rest=rest)


match ROLE, MODE:
    case "server", "sync":
        serve()
    case "server", "async":
        asyncio.run(serve_async())
    case "client", "sync":
        call()
    case "client", "async":
        asyncio.run(call_async())
