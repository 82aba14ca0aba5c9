"""Whom an endpoint trusts, and what is said when a secure connection fails: in words that tell what to mend."""

import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from evalrun.dispatch.transport import make_target, open_transport
from evalrun.errors import ApiError, ConfigError
from evalrun.records import ErrorCode
from tests.dispatch.rig import make_options
from tests.fake_endpoint import FakeEndpoint

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("each_engine")]

BODY = b'{"model": "m"}'


async def fail(base_url: str) -> ApiError:
    """Send one body and return its failure."""
    async with open_transport(make_target(make_options(base_url), environ={})) as transport:
        with pytest.raises(ApiError) as caught:
            await transport.send(BODY)
    return caught.value


@pytest.fixture(params=["missing", "a folder", "no certificate"])
def bad_file(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SSL_CERT_FILE names something that holds no certificate."""
    (tmp_path / "a folder").mkdir()
    (tmp_path / "no certificate").write_text("nothing of the kind", encoding="utf-8")
    path = tmp_path / str(request.param)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    return path


def test_authorities_that_cannot_be_loaded_are_found_before_sending(bad_file: Path) -> None:
    """A variable that names no certificates is a problem of the author's, named with its value."""
    with pytest.raises(ConfigError) as caught:
        make_target(make_options("https://127.0.0.1:1/v1"), environ={})
    assert f"SSL_CERT_FILE={bad_file}" in str(caught.value)


@pytest.mark.usefixtures("bad_file")
async def test_plain_address_needs_no_authorities(endpoint: FakeEndpoint) -> None:
    """Where nothing is encrypted, certificates play no part."""
    async with open_transport(make_target(make_options(endpoint.base_url), environ={})) as transport:
        assert (await transport.send(BODY)).status == 200


async def test_unknown_authority_is_told_in_words() -> None:
    """The message says what is wrong with the certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    with FakeEndpoint(tls=context) as server:
        error = await fail(server.base_url)
    assert error.code == ErrorCode.TLS
    assert "its certificate comes from an authority that is not known here" in error.message


async def test_server_that_speaks_no_tls_is_told_in_words(endpoint: FakeEndpoint) -> None:
    """An https address of a plain server is the likeliest cause of a garbled handshake."""
    error = await fail(f"https://127.0.0.1:{endpoint.port}/v1")
    assert error.code == ErrorCode.TLS
    assert "it does not speak TLS there; perhaps its address begins with http://" in error.message


async def test_hang_up_in_the_handshake_is_told_in_words() -> None:
    """A server that ends the handshake without a word is no system error of ours, and may be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):
                peer, _ = listener.accept()
                peer.recv(10_000)
                peer.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = await fail(f"https://127.0.0.1:{listener.getsockname()[1]}/v1")
        thread.join()
    assert (error.code, error.was_sent) == (ErrorCode.CONNECT, False)
    assert "the server hung up in the TLS handshake" in error.message
