"""Tests need no network, and get none: what would ask for one fails at once, on machines that have one too."""
import subprocess
import sys
import urllib.request

import pytest

ASK = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
try:
    socket.create_connection((sys.argv[1], 80))
except OSError as error:
    print(error)
"""


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "example.com"])
def test_a_command_reaches_this_machine_only(host):
    done = subprocess.run([sys.executable, "-c", ASK, host], capture_output=True, text=True, check=True)
    assert f"tests run without a network, and '{host}' was asked for" in done.stdout


def test_nor_does_the_test_itself_reach_more():
    with pytest.raises(OSError, match="tests run without a network"):
        urllib.request.urlopen("http://example.com", timeout=5)
