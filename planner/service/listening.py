"""Sockets that servers listen on, bound before anything else starts."""

import socket

from planner.domain.errors import InputError, NoFreePortError


def listening(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """A bound socket, so that a taken port is told before anything starts.

    Raises
    ------
    PoolwiseError
        When the address is not this machine's, or the port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small pieces at once (TCP_NODELAY); else streams stall.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except socket.gaierror as error:
        listener.close()
        raise InputError(f"--host {host} is no address of this machine") from error
    except OSError as error:
        listener.close()
        raise NoFreePortError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose another one with "
            f"{option}, or any free one with {option} 0"
        ) from error
    return listener
