"""Starts nginx and Caddy with config/nginx.conf and config/Caddyfile in front of stand-ins for three roles, and
requests every route of the crates over TLS. Each request must reach the role that serves it, unchanged; any other
path must reach none. No log may contain a query string, which can hold a gateway's token."""

import contextlib
import http.client
import http.server
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

from chart import ROOT, routes_of_the_crates

TOKEN = "token-of-a-gateway"
OTHERS = ["/", "/inbox", "/metrics", "/livez", "/readyz", "/healthz", "/v1", "/v1/verificationsx", "/v1/receiptsx/a",
          "/v1/verifications/a/b/c"]


def expect(good, what):
    if not good:
        sys.exit(f"tests/front: {what}")


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    expect(done.returncode == 0, f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")


def stand_in(role):
    """Starts a server that answers with its role and the requested path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def relay(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            body = f"{role} {self.path}".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = relay

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def ask(port, path, body=None):
    context = ssl._create_unverified_context()
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=context)
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, body, {"host": "otp.example.org"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def check(name, port, servers, logs):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            ask(port, "/")
            break
        time.sleep(0.1)
    for role, path in routes_of_the_crates():
        path = re.sub(r"\{[^}]+\}", "k3j7x29a", path) + "?a=%2F&b=c"
        expect(ask(port, path) == (200, f"{role} {path}"), f"{name}: {path} is not {role}'s: {ask(port, path)}")
    for path in OTHERS:
        expect(ask(port, path)[0] == 404, f"{name}: {path} is let in: {ask(port, path)}")
    for body in (b"x" * 100, b"x" * 64_000):
        answer = ask(port, "/v1/verifications", body)
        expect(answer == (200, "issuer /v1/verifications"), f"{name} passes no body of {len(body)} bytes on: {answer}")
    # Proxies log the requested address when a role is away.
    servers["sms-worker"].shutdown()
    servers["sms-worker"].server_close()
    expect(ask(port, f"/v1/receipts/a?token={TOKEN}")[0] == 502, f"{name} does not say that the role is away")
    time.sleep(0.5)
    text = "".join(file.read_text() for file in logs.rglob("*") if file.is_file())
    expect(TOKEN not in text, f"{name} logs a query string: {text.strip()[-800:]}")
    return text


def addresses(servers):
    return {role: f"127.0.0.1:{server.server_address[1]}" for role, server in servers.items()}


def with_nginx(folder, port, certificate, key):
    servers = {role: stand_in(role) for role in ("issuer", "verifier", "sms-worker")}
    logs = folder / "nginx"
    logs.mkdir()
    text = (ROOT / "config/nginx.conf").read_text()
    for ours, real in {"127.0.0.1:8080": addresses(servers)["issuer"], "127.0.0.1:8081": addresses(servers)["verifier"],
                       "127.0.0.1:8082": addresses(servers)["sms-worker"], "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                       "    listen [::]:443 ssl;\n": "", "/etc/ssl/watchword/fullchain.pem": certificate,
                       "/etc/ssl/watchword/privkey.pem": key, "/var/log/nginx": logs}.items():
        expect(ours in text, f"config/nginx.conf has no {ours}")
        text = text.replace(ours, str(real))
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    main = folder / "nginx.conf"
    main.write_text(f"daemon off;\nmaster_process off;\npid {folder}/nginx.pid;\nerror_log {logs}/error.log warn;\n"
                    f"events {{}}\nhttp {{\naccess_log {logs}/access.log;\n{temporary}{text}}}\n")
    run("nginx", "-t", "-c", main)
    process = subprocess.Popen(["nginx", "-c", main], stderr=subprocess.DEVNULL)
    try:
        text = check("nginx", port, servers, logs)
        expect("POST /v1/verifications 200" in text, f"nginx writes no log: {text[-500:]}")
        expect("buffered to a temporary file" not in text, f"nginx writes bodies to the disk: {text[-500:]}")
    finally:
        process.terminate()
        process.wait(20)


def with_caddy(folder, port, certificate, key):
    servers = {role: stand_in(role) for role in ("issuer", "verifier", "sms-worker")}
    file = ROOT / "config/Caddyfile"
    # With a public name Caddy would request a certificate from the internet.
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    run("caddy", "validate", "--config", file, "--adapter", "caddyfile", env=environment)
    text = file.read_text()
    formatted = subprocess.run(["caddy", "fmt", file], capture_output=True, text=True, env=environment).stdout
    expect(text == formatted, "config/Caddyfile is not formatted: caddy fmt --overwrite config/Caddyfile")
    own = folder / "Caddyfile"
    own.write_text(text.replace("{\n", "{\n\tadmin off\n\tauto_https disable_redirects\n", 1)
                   .replace("} {\n", f"}} {{\n\ttls {certificate} {key}\n", 1))
    logs = folder / "caddy"
    logs.mkdir()
    where = addresses(servers)
    environment |= {"SITE": f"https://:{port}", "ISSUER": where["issuer"], "VERIFIER": where["verifier"], "SMS_WORKER": where["sms-worker"]}
    with open(logs / "log", "w") as log:
        process = subprocess.Popen(["caddy", "run", "--config", own, "--adapter", "caddyfile"], env=environment, stdout=log, stderr=log)
    try:
        text = check("caddy", port, servers, logs)
        expect("/v1/receipts/a" in text, f"caddy writes no log of a role that is away: {text.strip()[-800:]}")
    finally:
        process.terminate()
        process.wait(20)


def main():
    expect({role for role, _ in routes_of_the_crates()} == {"issuer", "verifier", "sms-worker"}, "the crates' routes are not found")
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        ports = [one.getsockname()[1] for one in free]
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        certificate, key = folder / "certificate.pem", folder / "key.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
            "/CN=otp.example.org", "-addext", "subjectAltName=DNS:otp.example.org", "-keyout", key, "-out", certificate)
        with_nginx(folder, ports[0], certificate, key)
        with_caddy(folder, ports[1], certificate, key)
    print(f"tests/front: {len(routes_of_the_crates())} routes through nginx and Caddy")


main()
