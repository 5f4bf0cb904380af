"""Checks compose.yaml against the schema of the compose specification and against the programs it starts:

- the commands of docs/deploy.md make the secrets;
- Watchword, Caddy and Prometheus accept their configuration with the files and variables of the container;
- a real Redis started by its command is a store that Watchword accepts;
- a real RabbitMQ started by its command and configuration has a user with the permissions of docs/deploy.md.

There is no container engine here, so no container is started."""

import contextlib
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
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ["WATCHWORD_TOOLS"]) / "python/bin"
ROLES = ["issuer", "verifier", "sms-worker", "email-worker"]
WORKER = {"redis-password", "rabbitmq-password", "sealing"}
SECRETS = {"issuer": WORKER | {"digest", "index"}, "verifier": {"redis-password", "digest", "index"},
           "sms-worker": WORKER, "email-worker": WORKER}
IN_CONTAINER = "/run/secrets/"

failures = []


def expect(good, what):
    if not good:
        failures.append(what)
        print(f"  FAILED {what}")


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def sources(service):
    """Returns [(path on the host, path in the container)] of the mounts from the repository."""
    return [volume.split(":")[:2] for volume in service.get("volumes", []) if volume.startswith("./")]


def make_secrets(folder):
    """Runs the commands of docs/deploy.md up to the start of the containers. Returns the content of .env."""
    section = (ROOT / "docs/deploy.md").read_text().split("\n## Single machine\n")[1]
    commands = section.split("```\n")[1].split("docker compose")[0]
    made = run("bash", "-euc", commands, cwd=folder)
    expect(made.returncode == 0, f"docs/deploy.md: {made.stderr}")
    expect((folder / "secrets").stat().st_mode & 0o777 == 0o700, "the folder of the secrets is open to others")
    for file in (folder / "secrets").iterdir():
        expect(file.stat().st_mode & 0o777 == 0o440, f"docs/deploy.md makes {file.name} with {oct(file.stat().st_mode)}")
    return dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines())


def filled(value, known):
    """Substitutes the variables of .env."""
    return re.sub(r"\$\{(\w+):\?\}", lambda match: known[match[1]], value)


def check_redis(service, secrets, scratch):
    """Runs the container's command with a server that listens on a Unix socket of the test."""
    server, path = scratch / "bin/redis-server", scratch / "redis.sock"
    server.parent.mkdir()
    real = shutil.which("redis-server")
    server.write_text(f'#!/bin/sh\nexec {real} "$@" --port 0 --unixsocket {path} --dir {scratch}\n')
    server.chmod(0o755)
    # Replaced via SCRATCH, because the folder of the secrets is below /tmp as well.
    line = service["command"][0].replace("$$", "$").replace("/tmp/", "SCRATCH/").replace(IN_CONTAINER, f"{secrets}/")
    line = line.replace("SCRATCH", str(scratch))
    environment = {"PATH": f"{server.parent}:{os.environ['PATH']}"}
    with open(scratch / "redis.log", "w") as log:
        process = subprocess.Popen(["sh", "-c", line], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        client = ["redis-cli", "-s", path]
        expect("NOAUTH" in run(*client, "ping").stdout, "redis takes anybody")
        known = dict(os.environ, REDISCLI_AUTH=(secrets / "redis-password").read_text().strip())
        for key, wanted in (("maxmemory-policy", "noeviction"), ("appendonly", "yes"), ("appendfsync", "always"),
                            ("maxmemory", str(512 << 20))):
            found = run(*client, "config", "get", key, env=known).stdout.split()
            expect(found == [key, wanted], f"redis: {found}; {(scratch / 'redis.log').read_text()[-500:]}")
    finally:
        process.terminate()
        expect(process.wait(10) == 0, f"redis does not end at SIGTERM: {process.returncode}")


def check_rabbitmq(service, secrets, folder, scratch):
    """Starts a broker by the container's command, configuration and variables, and checks the user that it creates."""
    mounted = [(source, target) for source, target in sources(service) if target.startswith("/etc/rabbitmq/conf.d/")]
    expect(len(mounted) == 1 and (folder / mounted[0][0]).is_file(), f"rabbitmq: configured by {mounted}")
    if not mounted or not (folder / mounted[0][0]).is_file():
        return
    home = scratch / "rabbitmq"
    (home / "conf.d").mkdir(parents=True)
    shutil.copy(folder / mounted[0][0], home / "conf.d")
    with contextlib.ExitStack() as stack:
        listening = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        amqp, distribution, mapper = [one.getsockname()[1] for one in listening]
    (home / "conf.d/10-test.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{amqp}\nlog.console = false\ndisk_free_limit.absolute = 50MB\n")
    (home / "plugins").write_text("[].")
    expect(service["environment"] == {"RABBITMQ_DEFAULT_USER": "watchword"}, f"rabbitmq: {service['environment']}")
    line = service["command"][0].replace("$$", "$").replace(IN_CONTAINER, f"{secrets}/")
    entrypoint = home / "docker-entrypoint.sh"
    entrypoint.write_text("#!/bin/sh\nexec /usr/lib/rabbitmq/bin/rabbitmq-server\n")
    entrypoint.chmod(0o755)
    environment = service["environment"] | {
        "PATH": f"{home}:{os.environ['PATH']}", "HOME": str(home), "RABBITMQ_NODENAME": f"compose{amqp}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution), "ERL_EPMD_PORT": str(mapper), "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_MNESIA_BASE": str(home / "db"), "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "pid"), "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
        "RABBITMQ_CONFIG_FILES": str(home / "conf.d"), "RABBITMQ_CONFIG_FILE": str(home / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none")}

    def control(*words):
        return run("/usr/lib/rabbitmq/bin/rabbitmqctl", "--silent", *words, env=environment)

    log = open(home / "output", "w")
    started = [subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True) for command in
               (["epmd", "-address", "127.0.0.1", "-port", str(mapper)], ["sh", "-c", line])]
    try:
        control("wait", "--timeout", "90", home / "pid")
        control("await_startup")
        logs = "".join(path.read_text()[-2000:] for path in [home / "output", *(home / "log").glob("*.log")])
        users = control("list_users").stdout.split()
        expect(users[-2:] == ["watchword", "[]"], f"rabbitmq: its users are {users}; {logs}")
        found = control("list_user_permissions", "watchword", "--formatter", "json").stdout
        deploy = (ROOT / "docs/deploy.md").read_text()
        wanted = {"configure": "^watchword[.]", "write": "^(watchword[.]|amq[.]default$)"}
        stated = "rabbitmqctl set_permissions -p / watchword " + " ".join(f"'{one}'" for one in wanted.values())
        expect(stated in deploy, "rabbitmq: docs/deploy.md states other permissions")
        wanted["read"] = wanted["write"]
        expect([json.loads(found)] == [[{"vhost": "/"} | wanted]], f"rabbitmq: {found}")
        limit = control("eval", "application:get_env(rabbit, max_message_size).").stdout
        expect("131072" in limit, f"rabbitmq: takes messages of {limit}")
        # The password is accepted.
        login = control("authenticate_user", "watchword", (secrets / "rabbitmq-password").read_text().strip())
        expect(login.returncode == 0, f"rabbitmq: {login.stdout}{login.stderr}")
    finally:
        for process in reversed(started):
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            process.wait(60)
        log.close()


def check_proxy(services, known, folder, scratch):
    """Checks that Caddy accepts its configuration with the container's variables, listens on the published port,
    and forwards to the roles' addresses. tests/operate/front.py sends requests through it."""
    service = services["proxy"]
    mounted = dict((target, source) for source, target in sources(service))
    variables = {key: filled(value, known) for key, value in service["environment"].items()}
    path = pathlib.PurePath(service["command"][service["command"].index("--config") + 1])
    file = folder / mounted.get(str(path.parent), "none") / path.name
    environment = variables | {"PATH": os.environ["PATH"], "HOME": str(scratch), "XDG_DATA_HOME": str(scratch), "XDG_CONFIG_HOME": str(scratch)}
    for command in (["validate"], ["adapt"]):
        checked = run("caddy", *command, "--config", file, "--adapter", "caddyfile", env=environment)
        expect(checked.returncode == 0, f"proxy: {checked.stderr}")
    servers = json.loads(checked.stdout)["apps"]["http"]["servers"]
    listens = [address for server in servers.values() for address in server["listen"]]
    expect([f"127.0.0.1{address}{address}" for address in listens] == service["ports"], f"proxy: listens at {listens}")
    dialed = set(re.findall(r'"dial":"([^"]+)"', checked.stdout))
    expect(dialed == {f"{role}:8080" for role in ROLES if role != "email-worker"}, f"proxy: leads to {dialed}")


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    text = (folder / "compose.yaml").read_text()
    compose = yaml.safe_load(text)
    checked = run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", folder / "compose.yaml")
    expect(checked.returncode == 0, f"schema: {checked.stdout}{checked.stderr}")
    services = compose["services"]

    # Every variable is required, so that a missing one is an error and not an empty value.
    used = re.findall(r"(?<!\$)\$\{([^}]*)\}", text)
    expect(used and all(one.endswith(":?") for one in used), f"a variable may be missing unseen: {sorted(set(used))}")

    for name, service in services.items():
        for port in service.get("ports", []):
            expect(port.startswith("127.0.0.1:"), f"{name} is open to the network: {port}")
        options = service.get("logging", {}).get("options", {})
        expect({"max-size", "max-file"} <= set(options), f"{name}: its log grows without end")
        for variable, value in service.get("environment", {}).items():
            secret = re.search(r"PASS|SECRET|TOKEN|(?<!API_)KEY(?!S)", variable)
            expect(not secret, f"{name}: the variable {variable} shows a secret to whoever describes the container")
        for secret in service.get("secrets", []):
            expect(secret in compose["secrets"], f"{name} has {secret}, which nobody makes")
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
        known = make_secrets(scratch)
        made = scratch / "secrets"
        expect(set(known) == {one.removesuffix(":?") for one in used}, f"docs/deploy.md makes {sorted(known)}, and {used} are used")
        expect({file.name for file in made.iterdir()} == set(compose["secrets"]), "docs/deploy.md makes other secrets")
        for name, secret in compose["secrets"].items():
            expect(secret == {"file": f"./secrets/{name}"}, f"the secret {name} is {secret}")
        for role in ROLES:
            service = services.get(role, {})
            expect(service.get("command") == ["run", role], f"{role} runs {service.get('command')}")
            expect(service.get("read_only") is True and service.get("cap_drop") == ["ALL"], f"{role} has rights")
            # The folder is mounted and not the file, so that the container sees a file that an editor replaces.
            mounted = dict((target, source) for source, target in sources(service))
            variables = {key: filled(value, known) for key, value in service["environment"].items()}
            path = pathlib.PurePath(variables.pop("WATCHWORD_CONFIG"))
            config = folder / mounted.get(str(path.parent), "none") / path.name
            expect(config.is_file(), f"{role} has no configuration at {path}")
            given = scratch / role
            given.mkdir()
            for name in service["secrets"]:
                shutil.copy(made / name, given / name)
            own = given / "watchword.toml"
            own.write_text(config.read_text().replace(IN_CONTAINER, f"{given}/"))
            checked = run(os.environ["WATCHWORD_BIN"], "-c", own, "config", "check", role, env=variables)
            expect(checked.returncode == 0, f"{role}: {checked.stderr}")
            for wanted in ("http      0.0.0.0:8080", "admin     0.0.0.0:9090"):
                expect(wanted in checked.stdout, f"{role} does not listen: {checked.stdout}")
            for host in re.findall(r'^url = "\w+://(?:\w+@)?([\w-]+)', config.read_text(), re.M):
                # The verifier does not depend on the broker: codes are checked while it is away.
                waits = (role, host) != ("verifier", "rabbitmq")
                expect((host in service.get("depends_on", {})) == waits, f"{role} and whether it waits for {host}")
            expect(set(service["secrets"]) == SECRETS[role], f"{role} has {service['secrets']}")
            expect(service.get("group_add") == ["${SECRETS_GID:?}"], f"{role} cannot read its secrets")
            key = "service   example (1 keys, countries DE)"
            expect((key in checked.stdout) == (role in ("issuer", "verifier")), f"{role}: {checked.stdout}")
            for name in service["secrets"]:
                (given / name).rename(given / "away")
                missing = run(os.environ["WATCHWORD_BIN"], "-c", own, "config", "check", role, env=variables)
                expect(missing.returncode != 0, f"{role} has {name} and does not read it")
                (given / "away").rename(given / name)
            expect("ports" not in service, f"{role} is published beside the proxy")

        memory = re.search(r"maxmemory ([0-9]+)mb", services["redis"]["command"][0])
        expect(services["redis"]["mem_limit"] == "1g" and int(memory[1]) <= 512, "redis has no room to rewrite its file")
        check_redis(services["redis"], made, scratch)
        check_rabbitmq(services["rabbitmq"], made, folder, scratch)
        check_proxy(services, known, folder, scratch)

        # Prometheus, with the chart's rules if they exist and with one of the test.
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
