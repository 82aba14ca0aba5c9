"""The other side of the wire: nginx with one canned completion, plain and over TLS."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import trustme

_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 8192; }}
http {{
    access_log off; keepalive_requests 100000000; keepalive_timeout 120s; default_type application/json;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    server {{
        listen 127.0.0.1:{plain} backlog=4096; listen 127.0.0.1:{tls} ssl backlog=4096;
        location / {{ return 200 '{reply}'; }}
        location = /counts {{ stub_status; }}
    }}
}}
"""


def make_reply() -> bytes:
    """Return a completion as OpenAI writes them."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": "The answer is 42. " + "x" * 120,
        "refusal": None,
        "annotations": [],
    }
    usage = {
        "prompt_tokens": 26,
        "completion_tokens": 10,
        "total_tokens": 36,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }
    completion = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_760_000_000,
        "model": "gpt-5.1",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
        "usage": usage,
        "service_tier": "default",
    }
    return json.dumps(completion).encode()


def pin(command: list[str], core: int | None) -> list[str]:
    """Return the command bound to one core, where there is such a core and `taskset`; None leaves it free."""
    can_pin = core is not None and core < (os.cpu_count() or 1) and shutil.which("taskset")
    return ["taskset", "-c", str(core), *command] if can_pin else command


def find_free_port() -> int:
    """Return a port of loopback that nobody listens at now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Return once somebody listens at a port of loopback; half a minute is the most."""
    end_s = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            if time.monotonic() > end_s:
                raise
            time.sleep(0.02)
        else:
            return


@contextmanager
def serve_nginx(folder: Path, *, plain: int, tls: int, core: int | None = 1) -> Iterator[Path]:
    """Serve the canned completion; yields the authority's certificate.

    The reply stands in the configuration (`return 200`), so that nginx opens no file for it: with one core each, wrk is
    served about twice as much as by `try_files`. `GET /counts` tells how many requests nginx has taken.
    """
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    if not Path(nginx).exists():
        sys.exit("nginx is not installed: apt-get install nginx-light")
    # nginx started by root reads as another user.
    folder.chmod(0o755)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    reply = make_reply().decode()
    assert not set("'$\\") & set(reply), "nginx would read them as its own"
    (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, plain=plain, tls=tls, reply=reply))
    command = pin([nginx, "-p", str(folder), "-e", str(folder / "nginx.log"), "-c", str(folder / "nginx.conf")], core)
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(plain)
        yield folder / "ca.pem"
    finally:
        server.terminate()
        server.wait()
