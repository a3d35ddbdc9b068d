"""A real name server for tests: it answers over UDP what it is told, or nothing at all."""

import asyncio
import socket
import struct
from ipaddress import ip_address

_A, _AAAA = 1, 28


class Nameserver(asyncio.DatagramProtocol):
    """`answers`: a name's addresses, one list for each time that it is asked, the last one stays. None: it stays mute."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): lists for name, lists in answers.items()}
        self.asked = []
        self.waiting = asyncio.Semaphore(0)

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        self.address = "127.0.0.1:{}".format(self._transport.get_extra_info("sockname")[1])
        return self

    async def __aexit__(self, *_):
        self._transport.close()
        await asyncio.sleep(0)

    def connection_made(self, transport):
        self._transport = transport

    def datagram_received(self, data, peer):
        name, kind, question = _question(data)
        lists = self.answers.get(name)
        if kind == _A:
            self.asked.append(name)
        if lists is None:
            self.waiting.release()
            return
        addresses = lists.pop(0) if kind == _A and len(lists) > 1 else lists[0]
        records = [_record(address) for address in addresses if _kind(address) == kind]
        header = data[:2] + struct.pack(">HHHHH", 0x8180, 1, len(records), 0, 0)
        self._transport.sendto(header + question + b"".join(records), peer)


def _question(data):
    labels, at = [], 12
    while data[at]:
        labels.append(data[at + 1 : at + 1 + data[at]].decode())
        at += 1 + data[at]
    (kind,) = struct.unpack_from(">H", data, at + 1)
    return ".".join(labels).lower(), kind, data[12 : at + 5]


def _kind(address):
    return _A if ip_address(address).version == 4 else _AAAA


def _record(address):
    family = socket.AF_INET if _kind(address) == _A else socket.AF_INET6
    packed = socket.inet_pton(family, address)
    return b"\xc0\x0c" + struct.pack(">HHIH", _kind(address), 1, 0, len(packed)) + packed
