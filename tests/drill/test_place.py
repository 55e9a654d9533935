"""Where drill and story start an installation; tests take their ports from here, too."""

from __future__ import annotations

import random
import socket

import pytest

from geomagic_dagster.drill import place
from geomagic_dagster.drill.place import free_ports


def test_ports_are_free_and_never_given_twice():
    ports = free_ports(5) + free_ports(1)
    assert len(set(ports)) == 6
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_no_connection_of_another_program_can_take_them():
    assert max(free_ports(20)) < place._first_that_the_system_hands_out()


def test_a_port_that_somebody_listens_on_is_not_given(monkeypatch):
    taken = free_ports(1)[0]
    monkeypatch.setattr(place, "_given", set())
    monkeypatch.setattr(place, "_chance", random.Random(0))
    monkeypatch.setattr(place._chance, "sample", lambda ports, count: [taken, taken + 1, taken + 2])
    with socket.create_server(("127.0.0.1", taken)):
        assert taken not in free_ports(1)
        with pytest.raises(OSError, match=r"127.0.0.1: expected 9 free ports from 11000 to \d+; got \d. End servers."):
            free_ports(9)
