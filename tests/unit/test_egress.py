"""Requests to addresses that customers give: 200 bad ones make no connection, and good ones go to
the address that was judged."""

import ast
import asyncio
import socket
import ssl
import time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from egress_corpus import (
    ADDRESSES,
    CORPUS,
    LITERALS,
    MIXED,
    PORTS,
    RESOLVED,
    SCHEMES,
    SPELLINGS,
    UNKNOWN,
    USERS,
)

import headrace
from headrace import egress
from headrace.egress import Egress, public
from headrace.errors import Invalid

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


class Sink:
    """Listens on all addresses of the machine; counts connections and keeps what was sent."""

    def __init__(self, play):
        self._play = play
        self.connections = 0
        self.requests = []
        self.talks = []

    def accept(self, reader, writer):
        self.connections += 1
        self.talks.append(asyncio.create_task(self._talk(reader, writer)))

    async def _talk(self, reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = [
                int(x.split(b":")[1]) for x in head.split(b"\r\n") if x[:15] == b"Content-Length:"
            ]
            self.requests.append(head + await reader.readexactly(sum(length)))
            await self._play(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answering(data):
    async def play(writer):
        writer.write(data)
        await writer.drain()

    return play


@asynccontextmanager
async def sink(play=OK, tls=None):
    it = Sink(answering(play) if isinstance(play, bytes) else play)
    with socket.socket(socket.AF_INET6) as listener:  # both families
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind(("::", 0))
        server = await asyncio.start_server(it.accept, sock=listener.dup(), ssl=tls)
        it.port = listener.getsockname()[1]
    try:
        yield it
    finally:
        server.close()
        for task in it.talks:
            task.cancel()
        await asyncio.gather(*it.talks, return_exceptions=True)


class Names:
    """A resolver: each name gives its lists of addresses in turn, the last for ever."""

    def __init__(self, **names):
        self.names = {name.replace("_", "."): list(lists) for name, lists in names.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        lists = self.names.get(host)
        if lists is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return lists.pop(0) if len(lists) > 1 else lists[0]


def open_to_all(**more):
    return Egress(allow_private=True, **more)


async def refusal(coroutine):
    with pytest.raises(Invalid) as raised:
        await coroutine
    return raised.value.code, raised.value.detail.partition(":")[0]


# -- the corpus ------------------------------------------------------------------------------------


def corpus_names():
    names = Names(good_test=[["127.0.0.1"]], broken_test=[["not an address"]], none_test=[[]])
    names.names["metadata.google.internal"] = [["169.254.169.254"]]
    names.names["localhost"] = [["127.0.0.1", "::1"]]
    for number, address in enumerate(ADDRESSES):
        names.names[f"n{number}.test"] = [[address]]
        names.names[f"m{number}.test"] = [["93.184.216.34", address]]
    return names


async def test_the_corpus_makes_no_connection():
    assert len(CORPUS) == len(set(CORPUS)) > 300
    async with sink() as it:
        egress = Egress(ports=(443, it.port), resolve=corpus_names())
        for template in CORPUS:
            url = template.replace("PORT", str(it.port))
            code, reason = await refusal(egress.send("POST", url, body=b"secret"))
            assert code == "url-not-allowed", url
            assert reason in ("url", "scheme", "userinfo", "host", "port", "address"), url
            assert await refusal(egress.check(url)) == (code, reason)
        assert it.connections == 0
        # That the sink can be reached is what makes the zero worth something.
        assert (await open_to_all().send("GET", f"http://127.0.0.1:{it.port}/")).status == 200
        assert it.connections == 1


@pytest.mark.parametrize(
    ("urls", "reasons"),
    [
        (SCHEMES, {"scheme"}), (USERS[:9], {"userinfo"}), (PORTS[:10], {"port"}),
        (RESOLVED, {"address"}), (MIXED, {"address"}), (UNKNOWN, {"address"}),
        (LITERALS[: len(ADDRESSES)], {"address"}), (SPELLINGS, {"host", "url"}),
    ],
)  # fmt: skip
async def test_each_is_refused_for_its_own_reason(urls, reasons):
    egress = Egress(ports=(443, 444), resolve=corpus_names())
    for url in urls:
        code, reason = await refusal(egress.check(url.replace("PORT", "444")))
        assert (code, reason in reasons) == ("url-not-allowed", True), (url, reason)


async def test_a_refusal_repeats_nothing():
    egress = Egress(resolve=corpus_names())
    for url in [*CORPUS, "https://n6.test/"]:
        with pytest.raises(Invalid) as raised:
            await egress.check(url.replace("PORT", "443"))
        assert not any(word in str(raised.value) for word in ("test", "127.", "254"))


@pytest.mark.parametrize(
    "url",
    [
        "https://good.example/hook", "HTTPS://Good.Example", "https://good.example?x=1",
        "https://xn--bcher-kva.example/a%20b;c=d?e=f&g[]=http://127.0.0.1/", "https://a_b.example:443/",
        "https://93.184.216.34/", "https://[2606:2800:220:1::1]/", "https://[64:ff9b::5db8:d822]/",
    ],
)  # fmt: skip
async def test_what_is_public_passes(url):
    names = Names()
    for host in ("good.example", "xn--bcher-kva.example", "a_b.example"):
        names.names[host] = [["93.184.216.34", "2606:2800:220:1::1"]]
    await Egress(resolve=names).check(url)


async def test_the_systems_resolver_is_the_default():
    assert await refusal(Egress().check("https://localhost/")) == ("url-not-allowed", "address")
    await open_to_all().check("https://localhost/")


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://Good.example", "good.example", "/"),
        ("https://good.example?a", "good.example", "/?a"),
        ("http://good.example:443/x?y", "good.example:443", "/x?y"),
        ("https://[2606:2800::0:1]:444/", "[2606:2800::1]:444", "/"),
    ],
)
def test_a_url_is_read_once(url, authority, path):
    target = open_to_all().read(url)
    assert (target.authority, target.path) == (authority, path)


def test_what_is_public():
    assert not any(public(ip_address(address)) for address in ADDRESSES)
    for address in ("1.1.1.1", "8.8.8.8", "172.32.0.1", "223.255.255.254", "2606:4700::1111",
                    "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2a00:1450:4001::5eff:1"):  # fmt: skip
        assert public(ip_address(address)), address


# -- the address that was judged is the one that is called -----------------------------------------


async def test_a_name_is_resolved_once_and_the_connection_goes_there():
    """A second look-up would lead to an address where nobody listens."""
    names = Names(hook_test=[["127.0.0.1"], ["127.0.0.9"]])
    async with sink() as it:
        answer = await open_to_all(resolve=names).send(
            "POST",
            f"http://hook.test:{it.port}/a?b",
            headers={"X-Y": "z"},
            body=b"body",
            max_bytes=99,
        )
    assert names.asked == ["hook.test"]
    assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
    head, _, body = it.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b HTTP/1.1\r\n") and body == b"body"
    assert f"Host: hook.test:{it.port}".encode() in head and b"X-Y: z" in head


async def test_a_name_that_turns_private_is_refused_when_it_is_used():
    async with sink() as it:
        names = Names(hook_test=[["93.184.216.34"], ["127.0.0.1"]])
        egress = Egress(ports=(it.port,), resolve=names)
        await egress.check(f"https://hook.test:{it.port}/")  # as it was when it was registered
        code = await refusal(egress.send("POST", f"https://hook.test:{it.port}/", body=b"x"))
        assert (code, it.connections) == (("url-not-allowed", "address"), 0)


async def test_nothing_is_sent_where_another_address_answers(monkeypatch):
    real = httpcore.AnyIOBackend.connect_tcp

    async def elsewhere(self, host, port, *rest):
        return await real(self, "127.0.0.2", port, *rest)

    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", elsewhere)
    async with sink() as it:
        url = f"http://127.0.0.1:{it.port}/"
        assert await refusal(open_to_all().send("POST", url)) == ("url-fetch-failed", "connect")
        await asyncio.sleep(0.02)
        assert (it.connections, it.requests) == (1, [])


async def test_the_next_address_is_tried():
    async with sink() as it:
        names = Names(hook_test=[["127.0.0.1"]])
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
            port = closed.getsockname()[1]
            egress = open_to_all(resolve=names)
            code = await refusal(egress.send("GET", f"http://hook.test:{port}/"))
            assert code == ("url-fetch-failed", "connect")
        with socket.socket(socket.AF_INET6) as only_6:
            only_6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            only_6.bind(("::1", 0))
            server = await asyncio.start_server(it.accept, sock=only_6.dup())
            port = only_6.getsockname()[1]
        names.names["hook.test"] = [["127.0.0.1", "::1"]]
        assert (await egress.send("GET", f"http://hook.test:{port}/")).status == 200
        server.close()


async def test_the_environments_proxy_is_ignored(monkeypatch):
    async with sink() as proxy, sink() as it:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        await open_to_all().send("GET", f"http://127.0.0.1:{it.port}/")
        assert (proxy.connections, it.connections) == (0, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status):
    async with sink() as other:
        to = f"HTTP/1.1 {status} Gone\r\nLocation: http://127.0.0.1:{other.port}/\r\n\r\n"
        async with sink(to.encode()) as it:
            egress = open_to_all()
            answer = await egress.send("POST", f"http://127.0.0.1:{it.port}/", body=b"x")
            assert answer.status == status
            code = await refusal(egress.fetch(f"http://127.0.0.1:{it.port}/", 99))
            assert code == ("url-fetch-failed", "status")
        assert other.connections == 0


async def test_a_redirect_to_the_metadata_is_an_answer_like_any_other():
    to = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/\r\n\r\n"
    async with sink(to) as it:
        answer = await open_to_all().send("GET", f"http://127.0.0.1:{it.port}/")
        assert (answer.status, it.connections) == (302, 1)


# -- answers that are slow, endless, huge or none --------------------------------------------------


async def silent(writer):
    await asyncio.sleep(5)


async def slow_head(writer):
    for byte in OK:
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def slow_body(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b".")
        await asyncio.sleep(0.02)


async def endless_hints(writer):
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.005)


async def endless(writer):
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        await writer.drain()


async def endless_head(writer):
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Header: " + b"x" * 4_000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize("play", [silent, slow_head, slow_body, endless_hints])
async def test_what_is_slow_ends_in_time(play):
    async with sink(play) as it:
        began = time.monotonic()
        url = f"http://127.0.0.1:{it.port}/"
        code = await refusal(open_to_all(total_s=0.1).fetch(url, 10_000))
        assert code == ("url-fetch-failed", "timeout")
        assert time.monotonic() - began < 0.5


async def test_a_slow_look_up_ends_in_time():
    async def stuck(host, port):
        await asyncio.sleep(5)

    for use in ("check", "fetch"):
        egress = Egress(total_s=0.05, resolve=stuck)
        more = (1,) if use == "fetch" else ()
        code = await refusal(getattr(egress, use)("https://good.test/", *more))
        assert code == ("url-fetch-failed", "timeout")


async def test_who_does_not_accept_is_given_up():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = []
        for _ in range(3):  # fills the queue: further connections stay half open
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(address)
            waiting.append(client)
        began = time.monotonic()
        egress = open_to_all(connect_s=0.1)
        code = await refusal(egress.send("GET", f"http://127.0.0.1:{address[1]}/"))
        assert code[0] == "url-fetch-failed" and time.monotonic() - began < 0.5
        for client in waiting:
            client.close()


async def test_what_is_endless_is_read_up_to_the_limit():
    async with sink(endless) as it:
        url, egress = f"http://127.0.0.1:{it.port}/", open_to_all()
        answer = await egress.send("GET", url, max_bytes=100_000)
        assert (len(answer.body), answer.whole) == (100_000, False)
        answer = await egress.send("GET", url)
        assert (answer.status, answer.body) == (200, b"")  # not read at all
        assert await refusal(egress.fetch(url, 1_000)) == ("url-fetch-failed", "too-large")


async def test_an_endless_head_is_refused():
    async with sink(endless_head) as it:
        code = await refusal(open_to_all().send("GET", f"http://127.0.0.1:{it.port}/"))
        assert code == ("url-fetch-failed", "answer")


@pytest.mark.parametrize(
    ("limit", "fits"), [(4, False), (5, True), (6, True)], ids=["one over", "exact", "one under"]
)
async def test_the_limit_is_exact(limit, fits):
    async with sink() as it:
        url = f"http://127.0.0.1:{it.port}/"
        if fits:
            assert (await open_to_all().fetch(url, limit)).body == b"hello"
        else:
            assert await refusal(open_to_all().fetch(url, limit)) == (
                "url-fetch-failed",
                "too-large",
            )


@pytest.mark.parametrize(
    "data",
    [
        b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"\x00" * 100,
    ],
)  # fmt: skip
async def test_what_is_no_answer_is_refused(data):
    async with sink(data) as it:
        code = await refusal(open_to_all().fetch(f"http://127.0.0.1:{it.port}/", 99))
        assert code in (("url-fetch-failed", "answer"), ("url-fetch-failed", "connect"))


@pytest.mark.parametrize("status", [204, 404, 410, 500])
async def test_only_200_is_fetched(status):
    async with sink(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode()) as it:
        url = f"http://127.0.0.1:{it.port}/"
        assert (await open_to_all().send("POST", url)).status == status
        assert await refusal(open_to_all().fetch(url, 9)) == ("url-fetch-failed", "status")


async def test_a_bomb_stays_packed():
    packed = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"
    async with sink(packed) as it:
        answer = await open_to_all().fetch(f"http://127.0.0.1:{it.port}/", 99)
        assert answer.body == b"\x1f\x8b\x08"
        assert b"Accept-Encoding: identity" in it.requests[0]


# -- TLS -------------------------------------------------------------------------------------------


def certificate(folder, name, days=1):
    """(the server's context, one that trusts it)"""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = Path(folder) / "both.pem"
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


async def test_the_certificate_is_that_of_the_name_and_so_is_the_sni(tmp_path, monkeypatch):
    """Also the way as customers have it: https, a public address, nothing relaxed."""
    server, trusting = certificate(tmp_path, "hook.test")
    asked = []
    server.sni_callback = lambda _socket, name, _context: asked.append(name)
    monkeypatch.setattr(egress, "public", lambda address: str(address) == "127.0.0.2")
    async with sink(tls=server) as it:
        names = Names(hook_test=[["127.0.0.2"]], other_test=[["127.0.0.2"]])
        house = Egress(ports=(it.port,), resolve=names, tls=trusting)
        assert (await house.fetch(f"https://hook.test:{it.port}/", 9)).body == b"hello"
        assert asked == ["hook.test"]
        code = await refusal(house.send("POST", f"https://other.test:{it.port}/", body=b"secret"))
        assert code == ("url-fetch-failed", "tls")
        assert len(it.requests) == 1


@pytest.mark.parametrize("wrong", ["unknown authority", "expired", "no tls"])
async def test_who_cannot_prove_itself_gets_nothing(tmp_path, wrong):
    server, trusting = certificate(tmp_path, "hook.test", days=-1 if wrong == "expired" else 1)
    async with sink(tls=None if wrong == "no tls" else server) as it:
        house = open_to_all(
            resolve=Names(hook_test=[["127.0.0.1"]]),
            tls=None if wrong == "unknown authority" else trusting,
            connect_s=0.2,
        )
        code = await refusal(house.send("POST", f"https://hook.test:{it.port}/", body=b"secret"))
        # Our sink waits for the end of a head, as the handshake waits for the sink.
        assert code == ("url-fetch-failed", "timeout" if wrong == "no tls" else "tls")
        assert it.requests == []


# -- no other way out ------------------------------------------------------------------------------

CALLERS = {"aiohttp", "ftplib", "http.client", "httpcore", "httpx", "pycurl", "requests", "smtplib",
           "telnetlib", "urllib.request", "urllib3", "websockets"}  # fmt: skip
#: `egress.py` for addresses that customers give; the others call what the operator's settings name.
MAY = ("client/", "cli/", "testing/", "egress.py", "orchestrator/", "notify/", "registry/mlflow.py",
       "pipeline/track_mlflow.py")  # fmt: skip


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_no_other_module_opens_outgoing_http():
    root = Path(headrace.__file__).parent
    found = [
        f"{path.relative_to(root)}: {name}"
        for path in root.rglob("*.py")
        if not str(path.relative_to(root)).startswith(MAY)
        for name in imports(path)
        if any(name == caller or name.startswith(f"{caller}.") for caller in CALLERS)
    ]
    assert found == []
    assert "httpcore" in set(imports(root / "egress.py"))  # the net is not torn
