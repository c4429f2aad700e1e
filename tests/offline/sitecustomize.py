"""Python runs this as it starts, in every process of a test run: sockets reach this machine and nothing else."""
import errno
import ipaddress
import socket

_connect, _connect_ex, _sendto = socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto
_getaddrinfo, _gethostbyname = socket.getaddrinfo, socket.gethostbyname
_OWN_NAMES = {None, "", "localhost", socket.gethostname()}


class NoNetwork(OSError):
    """A test asked for the network, which `make test` must do without once all is installed."""


def _check(host):
    host = host.decode() if isinstance(host, bytes | bytearray) else host
    if host in _OWN_NAMES:
        return
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
        if address.is_loopback or address.is_unspecified:
            return
    except ValueError:                      # a name
        pass
    raise NoNetwork(errno.ENETUNREACH, f"tests run without a network, and {host!r} was asked for")


def _check_address(sock, address):
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        _check(address[0])


def connect(self, address):
    _check_address(self, address)
    return _connect(self, address)


def connect_ex(self, address):
    _check_address(self, address)
    return _connect_ex(self, address)


def sendto(self, data, *flags_and_address):
    _check_address(self, flags_and_address[-1])
    return _sendto(self, data, *flags_and_address)


def getaddrinfo(host, *args, **kwargs):
    _check(host)
    return _getaddrinfo(host, *args, **kwargs)


def gethostbyname(host):
    _check(host)
    return _gethostbyname(host)


socket.socket.connect, socket.socket.connect_ex, socket.socket.sendto = connect, connect_ex, sendto
socket.getaddrinfo, socket.gethostbyname = getaddrinfo, gethostbyname
