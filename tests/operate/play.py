"""Runs the rendered chart without a cluster: a process per Deployment with the arguments, variables and files
of its pod, on a real RabbitMQ and Redis, behind a proxy that follows the HTTPRoute, with the probes of the pods.
The kubelet and the cluster network are not covered."""

import base64
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from chart import HELMS, PROGRAM, ROOT, contents, fits, lay_out, of_kind, parsed, render, rules_of

KEY = "play-key-of-no-other-installation"
PASSWORDS = {("watchword-rabbitmq", "password"): "broker-secret", ("simulator", "token"): "gateway-token",
             ("simulator", "webhook"): "gateway-webhook"}


def fail(what):
    sys.exit(f"tests/chart: {what}")


def expect(good, what):
    if not good:
        fail(what)


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def until(seconds, what, condition):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    fail(f"{what() if callable(what) else what}: not within {seconds} s")


def ask(port, method, path, body=None, headers=()):
    """Returns (status, body), or (None, reason)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError as error:
        return None, str(error)
    finally:
        connection.close()


class Processes:
    """The started processes, which are stopped even if the test fails."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}

    def start(self, name, command, environment):
        with open(self.folder / f"{name}.log", "w") as log:
            self.running[name] = subprocess.Popen([str(part) for part in command], env=environment, stdout=log,
                                                  stderr=log, start_new_session=True)

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()[-1500:]

    def kill(self, name):
        os.killpg(self.running.pop(name).pid, signal.SIGKILL)

    def end(self):
        for name in list(self.running):
            self.kill(name)


LOGIN, KEDA = ({"authorization": "Basic " + base64.b64encode(text).decode(), "content-type": "application/json"}
               for text in (b"watchword:broker-secret", b"keda:keda-secret"))
# Exactly the RabbitMQ permissions that docs/deploy.md gives the roles' user.
RIGHTS = {"configure": "^watchword[.]", "write": "^(watchword[.]|amq[.]default$)", "read": "^watchword[.]"}


def start_peers(processes, folder, ports):
    amqp, management, distribution, mapper, redis = ports
    broker = folder / "broker"
    broker.mkdir()
    (broker / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nmanagement.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management}\n"
        f"default_user = watchword\ndefault_pass = {PASSWORDS['watchword-rabbitmq', 'password']}\n"
        "log.console = false\ndisk_free_limit.absolute = 50MB\n")
    (broker / "plugins").write_text("[rabbitmq_management].")
    # The broker would start a port mapper as a daemon, which outlives the test.
    processes.start("mapper", ["epmd", "-address", "127.0.0.1", "-port", mapper], os.environ)
    processes.start("rabbitmq", ["/usr/lib/rabbitmq/bin/rabbitmq-server"], {
        "PATH": os.environ["PATH"], "HOME": str(broker), "RABBITMQ_NODENAME": f"play{amqp}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution), "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(broker / "db"), "RABBITMQ_LOG_BASE": str(broker / "log"),
        "RABBITMQ_PID_FILE": str(broker / "pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(broker / "plugins"),
        "RABBITMQ_CONFIG_FILE": str(broker / "rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE": str(broker / "none")})
    processes.start("redis", ["redis-server", "--port", redis, "--bind", "127.0.0.1", "--dir", folder,
                              "--maxmemory-policy", "noeviction", "--save", ""], os.environ)
    # KEDA's user may log in and read, and change nothing.
    for path, body in (("permissions/%2F/watchword", RIGHTS), ("users/keda", {"password": "keda-secret", "tags": "monitoring"}),
                       ("permissions/%2F/keda", dict.fromkeys(RIGHTS, ""))):
        request = ("PUT", f"/api/{path}", json.dumps(body), LOGIN.items())
        until(60, lambda: f"RabbitMQ takes {path}: {processes.log('rabbitmq')}", lambda: ask(management, *request)[0] in (201, 204))


def route(rules, ports):
    """Starts a proxy that follows the HTTPRoute."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def relay(self):
            backends = [backend for rule, backend in rules if fits(rule, self.path)]
            status, body = 404, "the route has no such path"
            if backends:
                length = int(self.headers.get("content-length", 0))
                status, body = ask(ports[backends[0]], self.command, self.path, self.rfile.read(length), self.headers.items())
            self.send_response(status or 502)
            self.send_header("content-length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_DELETE = relay

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", ports["router"]), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def probe(container, kind, ports):
    """Returns the result of the probe as the kubelet would see it; `ports` has the pod's ports by name."""
    check = container[kind]
    if "tcpSocket" in check:
        try:
            socket.create_connection(("127.0.0.1", ports[check["tcpSocket"]["port"]]), 2).close()
            return True
        except OSError:
            return False
    status, _ = ask(ports[check["httpGet"]["port"]], "GET", check["httpGet"]["path"])
    return status == 200


def play(folder, processes):
    told = " ".join(f"'{RIGHTS[what]}'" for what in ("configure", "write", "read"))
    expect(f"set_permissions -p / watchword {told}" in (ROOT / "docs/deploy.md").read_text(), "docs/deploy.md names other rights")
    peers, (router, simulator) = free_ports(5), free_ports(2)
    values = (ROOT / "tests/operate/play.yaml").read_text()
    for word, port in (("RABBITMQ", peers[0]), ("MANAGEMENT", peers[1]), ("REDIS", peers[4]), ("ROUTER", router), ("SIMULATOR", simulator)):
        values = values.replace(word, f"127.0.0.1:{port}")
    (folder / "values.yaml").write_text(values)
    rendered = render(HELMS[1], ROOT / "helm/watchword", folder / "values.yaml")
    expect(rendered.returncode == 0, rendered.stderr)
    objects = parsed(rendered.stdout)
    start_peers(processes, folder, peers)
    behaviour = folder / "simulate.toml"
    behaviour.write_text(f'[sms]\nlisten = "127.0.0.1:{simulator}"\ntoken = "gateway-token"\nsecret = "gateway-webhook"\n'
                         f"[sms.receipts]\ndelay_ms = 100\n")
    processes.start("simulator", [PROGRAM, "simulate", behaviour], {})

    # Start the pods.
    content = contents(folder, PASSWORDS)
    pods, services = {}, {"router": router}
    for one in of_kind(objects, "Deployment"):
        name = one["metadata"]["labels"]["app.kubernetes.io/component"]
        container = one["spec"]["template"]["spec"]["containers"][0]
        config, environment, _ = lay_out(one, objects, content, folder / name)
        ports = dict(zip(("http", "admin"), free_ports(2)))
        # All pods share this machine's address, so each gets its own ports.
        environment |= {"WATCHWORD_CONFIG": str(config), "WATCHWORD_HTTP__LISTEN": f"127.0.0.1:{ports['http']}",
                        "WATCHWORD_ADMIN__LISTEN": f"127.0.0.1:{ports['admin']}"}
        processes.start(name, [PROGRAM, *container["args"]], environment)
        pods[name] = (container, ports)
        services[one["metadata"]["name"]] = ports["http"]
    route(rules_of("play", objects), services)
    for name, (container, ports) in pods.items():
        until(60, lambda: f"{name} is ready: {processes.log(name)}", lambda: probe(container, "readinessProbe", ports))
        expect(probe(container, "livenessProbe", ports), f"{name} is not alive")
    until(60, "all are ready by their own word",
          lambda: all(ask(ports["admin"], "GET", "/readyz")[0] == 200 for _, ports in pods.values()))

    # One code, through the route only.
    def call(method, path, body=None):
        text = None if body is None else json.dumps(body)
        status, answer = ask(router, method, path, text, {"authorization": f"Bearer {KEY}", "content-type": "application/json"}.items())
        return status, json.loads(answer) if answer.startswith("{") else answer

    def code_of(number):
        _, text = ask(simulator, "GET", "/control/messages", headers={"authorization": "Bearer gateway-token"}.items())
        texts = [one["text"] for one in json.loads(text) if one["to"] == number] if text.startswith("[") else []
        return re.search(r"\b[0-9]{6}\b", texts[-1]).group() if texts else None

    def opened(number):
        status, answer = call("POST", "/v1/verifications", {"channel": "sms", "to": number})
        expect(status == 202, f"POST: {status} {answer}")
        return answer["id"], until(15, "the code arrives", lambda: code_of(number))

    first, code = opened("+4915112345678")
    until(15, "the receipt arrives", lambda: call("GET", f"/v1/verifications/{first}")[1]["deliveries"][0]["outcome"] == "delivered")
    status, answer = call("POST", f"/v1/verifications/{first}/resend", {})
    expect(status == 429, f"resend: {status} {answer}")
    status, answer = call("POST", f"/v1/verifications/{first}/check", {"code": code})
    expect((status, answer["valid"]) == (200, True), f"check: {status} {answer}")
    second, _ = opened("+4915112345679")
    expect(call("DELETE", f"/v1/verifications/{second}")[0] == 204, "DELETE")
    expect(call("GET", "/metrics")[1] == "the route has no such path", "the route leads to the metrics")

    # The queues of KEDA's triggers exist at the triggers' address.
    for one in of_kind(objects, "ScaledObject"):
        for trigger in one["spec"]["triggers"]:
            asked = trigger["metadata"]
            expect(asked["host"] == f"http://127.0.0.1:{peers[1]}/" and asked["vhostName"] == "/", f"{asked}")
            status, answer = ask(peers[1], "GET", f"/api/queues/%2F/{asked['queueName']}", headers=KEDA.items())
            expect(status == 200 and json.loads(answer)["durable"], f"{asked['queueName']}: {status} {answer}")

    # Without RabbitMQ, sent codes can still be checked, and roles that send are not ready.
    third, code = opened("+4915112345670")
    processes.kill("rabbitmq")
    for name in ("issuer", "sms-worker", "email-worker"):
        container, ports = pods[name]
        until(30, f"{name} is not ready", lambda: not probe(container, "readinessProbe", ports))
        expect(probe(container, "livenessProbe", ports), f"{name} would be killed for its broker")
    expect(probe(pods["verifier"][0], "readinessProbe", pods["verifier"][1]), "the verifier is off its Service")
    status, answer = call("POST", f"/v1/verifications/{third}/check", {"code": code})
    expect((status, answer["valid"]) == (200, True), f"check without RabbitMQ: {status} {answer}")
    status, answer = call("POST", "/v1/verifications", {"channel": "sms", "to": "+4915112345671"})
    expect(status == 503, f"POST without RabbitMQ: {status} {answer}")

    # The processes end at SIGTERM within their grace period.
    for name in pods:
        processes.running[name].terminate()
    for name in pods:
        code = processes.running.pop(name).wait(30)
        expect(code == 0, f"{name} ended with {code}: {processes.log(name)}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        processes = Processes(folder)
        begun = time.monotonic()
        try:
            play(folder, processes)
        finally:
            processes.end()
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
    print(f"tests/chart: played in {time.monotonic() - begun:.0f} s")


main()
