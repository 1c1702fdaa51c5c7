"""The address of a process, had before anything else."""

import socket

import pytest

from tollgate.app.listen import bind
from tollgate.errors import ConfigError


def test_a_free_port_is_found_and_nobody_is_heard_there_yet():
    with bind("127.0.0.1", 0) as (bound,):
        address = bound.getsockname()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=1)
    assert address[0] == "127.0.0.1" and address[1] > 0
    with bind(*address):
        pass


def test_a_port_in_use_is_named_with_the_settings_that_change_it():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(ConfigError) as told,
        bind("127.0.0.1", port := other.getsockname()[1]),
    ):
        pass
    assert str(told.value).startswith(f"port {port} of 127.0.0.1 is in use by another program")
    assert "--port, TOLLGATE_PORT or 'server.port'" in str(told.value)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
def test_an_address_of_another_machine_is_named(host):
    with pytest.raises(ConfigError, match=r"cannot listen on .*see --host, 'server.host'"), bind(host, 0):
        pass
