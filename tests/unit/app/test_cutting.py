"""Connections end when their time is over, and not before."""

import socket

from dpdau.app.cutting import limited


def test_a_connection_is_cut_off() -> None:
    """Whoever reads there gets the end, also on one that comes after the time was over."""
    for wait_first in (False, True):
        ours, theirs = socket.socketpair()
        with ours, theirs, limited(30) as limit:
            if wait_first:
                limit.cut()
            limit.watch(ours)
            limit.cut()

            assert b"" == ours.recv(1)


def test_one_that_is_done_is_left_alone() -> None:
    """After its time nothing is cut, and nothing is held."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with limited(30) as limit:
            limit.watch(ours)
        limit.cut()
        theirs.sendall(b"x")

        assert b"x" == ours.recv(1)
