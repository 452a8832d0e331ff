"""`poolwise serve` over TLS: real handshakes, and files that cannot be used."""

import os
import shutil
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from planner.domain.errors import InputError, ServerError
from planner.service.client import Client, server_of
from planner.service.security.tls import Tls, TlsFiles, renewing, tls_context, tls_files
from planner.service.settings import ClientSettings, read_settings
from tests.planner.service.certificates import authority, signed, with_passphrase
from tests.planner.service.examples import write_spec
from tests.planner.service.served import served


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """An authority, two certificates that it signed, and a stranger's."""
    folder = tmp_path_factory.mktemp("pki")
    root = authority(folder)
    return {
        "folder": folder,
        "root": root,
        "server": signed(folder, root, "server"),
        "client": signed(folder, root, "client"),
        "stranger": signed(folder, authority(folder, "elsewhere"), "stranger"),
    }


def trusting(pki, client=None):
    context = ssl.create_default_context(cafile=pki["root"].cert)
    if client is not None:
        context.load_cert_chain(client.cert, client.key)
    return context


def options(pki, *more):
    server = pki["server"]
    return ("--tls-cert", str(server.cert), "--tls-key", str(server.key), *more)


def test_the_api_is_served_over_tls_only_and_browsers_are_told_to_stay_with_it(pki, tmp_path):
    write_spec(tmp_path)
    with served(tmp_path, *options(pki)) as (_, facts):
        assert facts["url"].startswith("https://127.0.0.1:")
        headers = {"Authorization": f"Bearer {facts['token']}"}
        with httpx.Client(verify=trusting(pki), base_url=facts["url"], headers=headers) as client:
            told = client.get("/v1/whoami")
        assert told.json()["role"] == "admin"
        assert told.headers["strict-transport-security"].startswith("max-age=")
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(facts["url"])
        with pytest.raises(httpx.HTTPError):
            httpx.get(facts["url"].replace("https", "http"))


def test_with_a_client_authority_strangers_are_not_let_in(pki, tmp_path):
    write_spec(tmp_path)
    more = ("--tls-client-ca", str(pki["root"].cert))
    with served(tmp_path, *options(pki, *more)) as (_, facts):
        known = trusting(pki, pki["client"])
        with httpx.Client(verify=known, base_url=facts["url"]) as client:
            assert client.get("/healthz").status_code == 200
        for nobody in (trusting(pki), trusting(pki, pki["stranger"])):
            with httpx.Client(verify=nobody) as client, pytest.raises(httpx.HTTPError):
                client.get(f"{facts['url']}/healthz")


def bad(pki, name, tmp_path):
    """Files that cannot be used, and what has to be said of them."""
    server, client = pki["server"], pki["client"]
    text = tmp_path / "text"
    text.write_text("no certificate")
    text.chmod(0o600)
    none = tmp_path / "none"
    open_key = tmp_path / "open.key"
    shutil.copy(server.key, open_key)
    open_key.chmod(0o644)
    return {
        "no cert": (none, server.key, None, f"--tls-cert {none} cannot be read: No such file"),
        "no key": (server.cert, none, None, f"--tls-key {none} cannot be read: No such file"),
        "folder": (tmp_path, server.key, None, "cannot be read: Is a directory"),
        "text as cert": (text, server.key, None, f"--tls-cert {text} holds no certificate"),
        "text as key": (server.cert, text, None, f"--tls-key {text} holds no private key"),
        "another key": (server.cert, client.key, None, "is not the key of --tls-cert"),
        "open key": (server.cert, open_key, None, "may be read or changed by others (mode 0644)"),
        "locked key": (
            server.cert,
            with_passphrase(tmp_path, server.key),
            None,
            "has a passphrase: give a key without one",
        ),
        "no authority": (server.cert, server.key, none, f"--tls-client-ca {none} cannot be read"),
        "text as authority": (server.cert, server.key, text, "holds no certificates in PEM form"),
    }[name]


BAD = (
    *("no cert", "no key", "folder", "text as cert", "text as key", "another key", "open key"),
    *("locked key", "no authority", "text as authority"),
)


@pytest.mark.parametrize("name", BAD)
def test_files_that_cannot_be_used_are_named(pki, name, tmp_path):
    cert, key, client_ca, what = bad(pki, name, tmp_path)
    with pytest.raises(InputError) as refused:
        tls_context(TlsFiles(cert=cert, key=key, client_ca=client_ca))
    assert what in str(refused.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a file as root does")
def test_a_group_may_read_a_key_of_root_as_in_a_pod(pki, tmp_path):
    key = tmp_path / "tls.key"
    shutil.copy(pki["server"].key, key)
    key.chmod(0o640)
    assert tls_context(TlsFiles(cert=pki["server"].cert, key=key))


def test_a_certificate_needs_its_key_and_the_other_way_round(pki):
    server = pki["server"]
    assert tls_files(None, None, None) is None
    for given in ((server.cert, None, None), (None, server.key, None), (None, None, server.cert)):
        with pytest.raises(InputError, match="give them together"):
            tls_files(*given)


def test_serve_says_what_is_wrong_with_its_files_before_it_starts(folder, poolwise):
    status, out, err = poolwise(
        *("serve", "--spec", "spec.yaml", "--tls-cert", "none.pem", "--tls-key", "none.key")
    )
    assert (status, out) == (2, "")
    assert err == "poolwise: --tls-cert none.pem cannot be read: No such file or directory\n"
    assert not (folder / "state").exists()


class NoPlans(BaseHTTPRequestHandler):
    """Stands for a server that has none."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"plans": []}')

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def closed_server(pki):
    """The address of one that lets in whom its authority knows."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), NoPlans)
    server.handle_error = lambda *_: None  # strangers are turned away, which is no news
    ours = pki["server"]
    context = tls_context(TlsFiles(cert=ours.cert, key=ours.key, client_ca=pki["root"].cert))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def asked(url, pki, *, ca="root", shown="client"):
    """What a command gets that trusts and shows these."""
    environ = {"POOLWISE_SERVER": url}
    if ca:
        environ["POOLWISE_SERVER_CA"] = str(pki[ca].cert)
    if shown:
        environ["POOLWISE_CLIENT_CERT"] = str(pki[shown].cert)
        environ["POOLWISE_CLIENT_KEY"] = str(pki[shown].key)
    with Client(server_of(read_settings(environ).client)) as client:
        return client.get("v1", "plans")


def test_commands_trust_a_private_authority_and_show_their_certificate(pki, closed_server):
    assert asked(closed_server, pki) == {"plans": []}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"ca": None}, "name who signed its certificate by POOLWISE_SERVER_CA"),
        ({"ca": "client"}, "name who signed its certificate by POOLWISE_SERVER_CA"),
        ({"shown": None}, "shown a certificate: POOLWISE_CLIENT_CERT and POOLWISE_CLIENT_KEY"),
        ({"shown": "stranger"}, "it does not trust who signed POOLWISE_CLIENT_CERT"),
    ],
)
def test_commands_say_which_file_tls_lacks(pki, closed_server, given, what):
    with pytest.raises(ServerError) as refused:
        asked(closed_server, pki, **given)
    assert what in str(refused.value)


def test_files_that_commands_cannot_use_are_named_by_their_variables(pki, tmp_path):
    client, none = pki["client"], tmp_path / "none"
    for settings, what in (
        (ClientSettings(server_ca=none), f"POOLWISE_SERVER_CA {none} cannot be read"),
        (ClientSettings(cert=client.cert), "POOLWISE_CLIENT_CERT goes with POOLWISE_CLIENT_KEY"),
        (
            ClientSettings(cert=client.cert, key=pki["server"].key),
            "is not the key of POOLWISE_CLIENT_CERT",
        ),
    ):
        with pytest.raises(InputError, match=what):
            server_of(settings)


def answering(context):
    """A socket that shakes hands and hangs up, until it is closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            with plain, context.wrap_socket(plain, server_side=True):
                pass

    threading.Thread(target=run, daemon=True).start()
    return listener


def serial_of(pki, port):
    with (
        socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
        trusting(pki).wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        return secured.getpeercert()["serialNumber"]


def test_a_renewed_certificate_is_used_without_a_restart(pki, tmp_path):
    first = signed(tmp_path, pki["root"], "first")
    files = TlsFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    put(first, files)
    context = tls_context(files)
    with (
        answering(context) as listener,
        renewing(Tls(files=files, context=context), look_s=0.05),
    ):
        port = listener.getsockname()[1]
        before = serial_of(pki, port)
        assert serial_of(pki, port) == before
        put(signed(tmp_path, pki["root"], "second"), files)
        until = time.monotonic() + 30
        while serial_of(pki, port) == before:
            assert time.monotonic() < until
            time.sleep(0.05)


def put(certificate, files):
    """As certificate managers do: the files are replaced, not written over."""
    for source, target in ((certificate.cert, files.cert), (certificate.key, files.key)):
        new = target.with_suffix(".new")
        shutil.copy(source, new)
        new.chmod(0o600)
        new.replace(target)
