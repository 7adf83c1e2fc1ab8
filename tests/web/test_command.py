"""`crce web` before it serves."""

from __future__ import annotations

import socket

import pytest

from crce.cli.main import main
from crce.cli.web import _listen
from crce.errors import ConfigError


def test_a_port_that_is_taken_gives_way_to_the_next():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with _listen("127.0.0.1", port) as listening:
            assert port < listening.getsockname()[1] <= port + 20


def test_an_address_of_another_machine_is_refused_in_one_line(capsys, tmp_path):
    assert main(["web", "--host", "192.0.2.1", "--no-browser", "--folder", str(tmp_path)]) == 2
    assert "Choose another --host or --port" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="Cannot listen"):
        _listen("no such host", 8377)
