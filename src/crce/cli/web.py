"""`crce web`: the web app, on this machine."""

import logging
import secrets
import socket
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from crce.errors import ConfigError


FREE = 20  # ports after the wanted one that are tried


def web(
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but this machine's own needs a token, which is printed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; the next free one if it is taken.")] = 8377,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="Another name by which browsers call the server, e.g. behind a proxy."),
    ] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
    folder: Annotated[Path, typer.Option(metavar="RUNS", help="Folder of the runs.")] = Path("runs"),
) -> int:
    """Open the web app: name a concept, look over its words, erase it, compare before and after.

    Jobs are processes of their own: they go on when the page or the server is closed, and the server finds them again.
    """
    try:
        import uvicorn

        from crce.web.app import create_app
    except ImportError as error:
        raise ConfigError(f"crce web needs the package {error.name}. Install it: pip install 'crce[web]'") from error
    from crce.web.middleware import LOOPBACK

    listening = _listen(host, port)
    token = None if host in LOOPBACK else secrets.token_urlsafe(24)
    number = listening.getsockname()[1]
    app = create_app(folder, hosts={*LOOPBACK, host, socket.gethostname(), *(name or [])}, token=token)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{number}/" + (f"?token={token}" if token else "")
    typer.echo(f"crce web  {address}\nruns      {folder.resolve()}\nStop it with Ctrl-C; jobs go on.")
    if browser:
        opening = threading.Timer(1.0, webbrowser.open, [address])
        opening.daemon = True
        opening.start()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2, server_header=False)
    server = uvicorn.Server(config)
    # what is cut off by the end of the server is no error of a page
    logging.getLogger("uvicorn.error").addFilter(lambda record: not server.should_exit)
    server.run(sockets=[listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """A socket on the port, or on the next one that is free; a ConfigError if none is."""
    for number in range(port, min(port + FREE, 65535) + 1) if port else (0,):
        try:
            return socket.create_server((host, number), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            reason = error
    raise ConfigError(f"Cannot listen on {host}:{port}: {reason.strerror}. Choose another --host or --port.")
