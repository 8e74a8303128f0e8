"""The ports that runs use: free, or held by whom."""

from __future__ import annotations

import errno
import socket

import httpx
import psutil

from align.doctor import launching
from align.doctor.asked import Asked
from align.doctor.nvidia import name_of
from align.terminal.findings import Findings

SERVER = 8000  # vLLM's own default, and Engine.url's
ASKED_SECONDS = 1.0


def check_ports(asked: Asked, found: Findings) -> None:
    """vLLM's server and where accelerate's processes meet."""
    if (who := holder(SERVER)) is None:
        found.note("ports", f"{SERVER} (vLLM's server) is free")
    elif served := _served(SERVER):
        found.note("ports", f"{SERVER}: a server of {served} ({who})")
    else:
        free = free_port(SERVER + 1)
        cure = f"vllm serve … --port {free}, and --engine.url http://127.0.0.1:{free}"
        found.warning("ports", f"{SERVER} (vLLM's server) is held by {who}", cure)
    port, needed = launching.meeting(asked)
    if port == 0:
        found.note("ports", "accelerate chooses a free port itself")
    elif (who := holder(port)) is None:
        found.note("ports", f"{port} (where accelerate's processes meet) is free")
    else:
        said = f"{port} (where accelerate's processes meet) is held by {who}"
        cure = f"accelerate launch --main_process_port {free_port(port + 1)} …"
        found.report("ports", said, cure, certain=needed)


def holder(port: int) -> str | None:
    """Who listens there, on any address; None where it is free."""
    if not _taken(port):
        return None
    try:
        held = psutil.net_connections(kind="tcp")
    except psutil.Error:
        held = []
    for each in held:
        if each.laddr and each.laddr.port == port and each.pid is not None:
            return f"{name_of(each.pid)} (process {each.pid})"
    return "a process of another user or container"


def free_port(first: int) -> int:
    """The first free port from there on."""
    return next((port for port in range(first, 65536) if not _taken(port)), 0)


def _taken(port: int) -> bool:
    for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as tried:
                tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    tried.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                tried.bind((address, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return True
            # no IPv6 here
    return False


def _served(port: int) -> str:
    """The models of a server that speaks vLLM's protocol; empty for anything else."""
    try:
        answer = httpx.get(
            f"http://127.0.0.1:{port}/v1/models", timeout=ASKED_SECONDS, trust_env=False
        )
        return ", ".join(str(each["id"]) for each in answer.json()["data"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return ""
