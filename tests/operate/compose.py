"""Holds compose.yaml to the compose specification's schema, and to what it starts: the program takes
the configuration with the variables a container gets, Prometheus takes its own, and a real Redis comes
up from its command as a store Watchword may use. There is no engine here: no container is started."""

import base64
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ["WATCHWORD_TOOLS"]) / "python/bin"
ROLES = ["issuer", "verifier", "sms-worker", "email-worker"]
WORKER = {"REDIS_PASSWORD", "RABBITMQ_PASSWORD", "SEALING_KEY"}
SECRETS = {"issuer": WORKER | {"DIGEST_KEY", "INDEX_KEY"}, "verifier": {"REDIS_PASSWORD", "DIGEST_KEY", "INDEX_KEY"},
           "sms-worker": WORKER, "email-worker": WORKER}

failures = []


def expect(good, what):
    if not good:
        failures.append(what)
        print(f"  FAILED {what}")


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def sources(service):
    """[(path on the host, path in the container)] of what is mounted from the repository."""
    return [volume.split(":")[:2] for volume in service.get("volumes", []) if volume.startswith("./")]


def filled(value):
    """The value with what .env holds, as docs/deploy.md makes it."""
    def of(match):
        return os.urandom(32).hex() if match[1] == "API_KEY_SHA256" else base64.b64encode(os.urandom(32)).decode()

    return re.sub(r"\$\{(\w+):\?\}", of, value)


def check_redis(service, scratch):
    """Runs the container's command with a server that listens at a socket of ours."""
    expect(service["entrypoint"] == ["sh", "-c"], "redis: its command is no line of a shell")
    server, socket = scratch / "bin/redis-server", scratch / "redis.sock"
    server.parent.mkdir()
    real = shutil.which("redis-server")
    server.write_text(f'#!/bin/sh\nexec {real} "$@" --port 0 --unixsocket {socket} --dir {scratch}\n')
    server.chmod(0o755)
    line = service["command"][0].replace("$$", "$").replace("/tmp/", f"{scratch}/")
    environment = {"PATH": f"{server.parent}:{os.environ['PATH']}", "REDIS_PASSWORD": "0f0f"}
    with open(scratch / "redis.log", "w") as log:
        process = subprocess.Popen(["sh", "-c", line], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        client = ["redis-cli", "-s", socket]
        expect("NOAUTH" in run(*client, "ping").stdout, "redis takes anybody")
        known = dict(os.environ, REDISCLI_AUTH="0f0f")
        for key, wanted in (("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "everysec")):
            found = run(*client, "config", "get", key, env=known).stdout.split()
            expect(found == [key, wanted], f"redis: {found}; {(scratch / 'redis.log').read_text()[-500:]}")
    finally:
        process.terminate()
        expect(process.wait(10) == 0, f"redis does not end at SIGTERM: {process.returncode}")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    text = (folder / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    checked = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", folder / "compose.yaml")
    expect(checked.returncode == 0, f"schema: {checked.stdout}{checked.stderr}")
    services = compose["services"]

    # Every variable is asked for, so that a missing one is told and not empty.
    used = re.findall(r"(?<!\$)\$\{([^}]*)\}", text)
    expect(used and all(one.endswith(":?") for one in used), f"a variable may be missing unseen: {sorted(set(used))}")

    for name, service in services.items():
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}")
        for other in service.get("depends_on", {}):
            expect("healthcheck" in services.get(other, {}), f"{name} waits for {other}, which has no health")
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            known = source in compose["volumes"] or source.startswith("./")
            expect(known, f"{name} mounts {source}, which nobody has")
        image = service["image"]
        expect("build" in service or re.search(r":v?[0-9]+\.[0-9]+", image), f"{name}: {image} is any version")

    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        for role in ROLES:
            service = services.get(role, {})
            expect(service.get("command") == ["run", role], f"{role} runs {service.get('command')}")
            expect(service.get("read_only") is True and service.get("cap_drop") == ["ALL"], f"{role} has rights")
            mounted = dict((target, source) for source, target in sources(service))
            config = folder / mounted.get("/etc/watchword/config/watchword.toml", "none")
            secrets = {key: filled(value) for key, value in service.get("environment", {}).items()}
            checked = run(os.environ["WATCHWORD_BIN"], "-c", config, "config", "check", role, env=secrets)
            expect(checked.returncode == 0, f"{role}: {checked.stderr}")
            for wanted in ("http      0.0.0.0:8080", "admin     0.0.0.0:9090"):
                expect(wanted in checked.stdout, f"{role} does not listen: {checked.stdout}")
            for host in re.findall(r'^url = "\w+://(?:\w+@)?([\w-]+)', config.read_text() if config.is_file() else "", re.M):
                # Codes are checked while the broker is away.
                waits = (role, host) != ("verifier", "rabbitmq")
                expect((host in service.get("depends_on", {})) == waits, f"{role} and whether it waits for {host}")
            has = {name for name in secrets if not name.startswith("WATCHWORD_")}
            expect(has == SECRETS[role], f"{role} has {sorted(has)}")
            key = "service   example (1 keys, countries DE)"
            expect((key in checked.stdout) == (role in ("issuer", "verifier")), f"{role}: {checked.stdout}")
            missing = run(os.environ["WATCHWORD_BIN"], "-c", config, "config", "check", role,
                          env={name: value for name, value in secrets.items() if name != "REDIS_PASSWORD"} | {"DIGEST_KEY": "", "SEALING_KEY": ""})
            expect("config key `keys." in missing.stderr, f"{role} without its keys: {missing.stderr}")
            for port in service.get("ports", []):
                expect(port.endswith(":8080"), f"{role} publishes {port}")

        check_redis(services["redis"], scratch)

        # Prometheus, with the chart's rules if they are there and with one of ours.
        for source, target in sources(services["prometheus"]):
            copy = scratch / target.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            if (folder / source).is_dir():
                shutil.copytree(folder / source, copy, dirs_exist_ok=True)
            elif (folder / source).exists():
                shutil.copy(folder / source, copy)
        rules = scratch / "etc/prometheus/rules"
        rules.mkdir(exist_ok=True)
        (rules / "own.yml").write_text("groups: [{name: own, rules: [{record: own:up, expr: up}]}]\n")
        checked = run("promtool", "check", "config", scratch / "etc/prometheus/prometheus.yml")
        expect(checked.returncode == 0 and "own.yml" in checked.stdout, f"promtool: {checked.stdout}{checked.stderr}")
        scrapes = yaml.safe_load((folder / "config/prometheus.yml").read_text())["scrape_configs"]
        found = [scrape for scrape in scrapes if scrape["job_name"] == "watchword"][0]["dns_sd_configs"][0]
        expect((sorted(found["names"]), found["port"]) == (sorted(ROLES), 9090), f"scrapes {found}")

    if failures:
        sys.exit(f"tests/compose: {len(failures)} failed")
    print(f"tests/compose: {len(services)} services held to the schema; no container was started")


main()
