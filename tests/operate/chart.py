"""Renders the chart with two major versions of Helm and validates the result against the schemas of
Kubernetes and of the CRDs. The program must accept a role's configuration with exactly the files and
variables of its pod. There is no cluster here, so nothing is installed."""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = pathlib.Path(os.environ["WATCHWORD_TOOLS"])
PROGRAM = os.environ["WATCHWORD_BIN"]
HELMS = [TOOLS / "helm3", TOOLS / "helm4"]
KUBERNETES = ["1.30", "1.34", "1.37"]  # the oldest supported version, one in between, the newest
APIS = ["keda.sh/v1alpha1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"]
NAMESPACE = "otp-space"

# The routes as the crates declare them; a new route there must be known here.
ROLES = {"issuer": "issuer", "verifier": "verifier", "sms-worker": "sms-worker"}

STAND_IN_RULES = """# A comment.
groups:
  - name: watchword
    rules:
      - alert: WatchwordAway
        expr: absent(watchword_dependency_up)
        for: 5m
        labels: {severity: critical}
        annotations: {summary: "{{ $labels.instance }} is at {{ $value }}"}
"""

failures = []


def expect(good, what):
    if not good:
        failures.append(what)
        print(f"  FAILED {what}")


def run(command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def render(helm, chart, *files, name="otp", apis=APIS, more=()):
    command = [helm, "template", name, chart, "--namespace", NAMESPACE, *more]
    for file in files:
        command += ["-f", file]
    for api in apis:
        command += ["--api-versions", api]
    return run(command)


def parsed(text):
    return [one for one in yaml.safe_load_all(text) if one]


def of_kind(objects, kind):
    return [one for one in objects if one["kind"] == kind]


def routes_of_the_crates():
    """Returns [(role, path)]; a path has {…} for a variable part."""
    found = []
    for crate, role in ROLES.items():
        for file in sorted((ROOT / "crates" / crate / "src").rglob("*.rs")):
            text = file.read_text()
            found += [(role, path) for path in re.findall(r'\.route\(\s*"(/v1/[^"]+)"', text)]
    return found


# --- Checks of every object.


def check_objects(case, objects):
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    expect(len(names) == len(set(names)), f"{case}: two objects of one kind and name")
    expect("Secret" not in {kind for kind, _ in names}, f"{case}: renders a Secret")
    for one in objects:
        what = f"{case}: {one['kind']} {one['metadata']['name']}"
        labels = one["metadata"]["labels"]
        for label in ("name", "instance", "version", "part-of", "managed-by"):
            expect(labels.get(f"app.kubernetes.io/{label}"), f"{what} has no label {label}")
        expect("helm.sh/chart" in labels, f"{what} has no label helm.sh/chart")
        expect(len(one["metadata"]["name"]) <= 63, f"{what}: the name is too long")
        expect(one["metadata"].get("namespace") == NAMESPACE, f"{what}: wrong namespace")
    builtin = [one for one in objects if one["apiVersion"] not in APIS]
    for version in KUBERNETES:
        for one in builtin:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except Exception as error:  # the package has an exception class for each kind of error
                expect(False, f"{case}: {one['kind']} {one['metadata']['name']} on {version}: {error}")
    custom = [one for one in objects if one["apiVersion"] in APIS]
    if custom:
        checked = run(["node", ROOT / "tests/operate/custom_resource.mjs"], input=json.dumps(custom))
        expect(checked.returncode == 0, f"{case}: {checked.stdout}{checked.stderr}")


def check_pods(case, deployments):
    for one in deployments:
        what = f"{case}: {one['metadata']['name']}"
        template = one["spec"]["template"]
        pod = template["spec"]
        container = pod["containers"][0]
        expect(len(pod["containers"]) == 1, f"{what}: more than one container")
        expect(one["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items(),
               f"{what}: its selector does not fit its pods")
        expect("app.kubernetes.io/component" in one["spec"]["selector"]["matchLabels"], f"{what}: no component")
        expect("app.kubernetes.io/version" not in one["spec"]["selector"]["matchLabels"],
               f"{what}: a new version changes its selector")
        security = pod["securityContext"]
        expect(security["runAsNonRoot"] is True and security["runAsUser"] > 0, f"{what}: may be root")
        expect(security["seccompProfile"] == {"type": "RuntimeDefault"}, f"{what}: no seccomp profile")
        own = container["securityContext"]
        expect(own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                       "capabilities": {"drop": ["ALL"]}}, f"{what}: its security context")
        expect(pod["automountServiceAccountToken"] is False, f"{what}: has a token of the cluster")
        expect(pod["enableServiceLinks"] is False, f"{what}: gets variables of Services")
        expect(container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}, f"{what}: liveness")
        expect(container["startupProbe"]["httpGet"]["path"] == "/livez", f"{what}: startup")
        roles = container["args"][1:]
        ready = container["readinessProbe"]
        if "verifier" in roles:
            expect(ready.get("tcpSocket") == {"port": "http"}, f"{what}: readiness of what checks codes")
        else:
            expect(ready.get("httpGet") == {"path": "/readyz", "port": "admin"}, f"{what}: readiness")
        wait = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        expect(pod["terminationGracePeriodSeconds"] >= wait + 26, f"{what}: killed while it drains")
        expect(container["resources"].get("requests") and container["resources"].get("limits"), f"{what}: resources")
        keys = {rule["topologyKey"] for rule in pod["topologySpreadConstraints"]}
        expect(keys == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}, f"{what}: spread over {keys}")
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            expect(volume.get("secret", {}).get("defaultMode", 0) & 0o007 == 0, f"{what}: a secret open to others")
        mounts = [mount["name"] for mount in container["volumeMounts"]]
        expect(volumes == set(mounts) and len(mounts) == len(set(mounts)), f"{what}: {volumes} and {mounts}")


def check_references(case, objects, deployments):
    """Every selector and reference to a Deployment matches at least one."""
    names = {one["metadata"]["name"]: one for one in deployments}

    def selected(labels):
        return [one for one in deployments if labels.items() <= one["spec"]["template"]["metadata"]["labels"].items()]

    def ports(one):
        return {port["name"] for port in one["spec"]["template"]["spec"]["containers"][0]["ports"]}

    services = {}
    for one in of_kind(objects, "Service"):
        pods = selected(one["spec"]["selector"])
        expect(len(pods) == 1, f"{case}: Service {one['metadata']['name']} selects {len(pods)} Deployments")
        for port in one["spec"]["ports"]:
            expect(all(port["targetPort"] in ports(pod) for pod in pods), f"{case}: a Service's port is no pod's")
        services[one["metadata"]["name"]] = pods[0]["spec"]["template"]["spec"]["containers"][0]["args"][1:]
    scaled = []
    for one in of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject"):
        target = one["spec"]["scaleTargetRef"]["name"]
        expect(target in names, f"{case}: {one['kind']} scales {target}, which is not there")
        scaled.append(target)
    expect(len(scaled) == len(set(scaled)), f"{case}: a Deployment is scaled twice")
    for name, one in names.items():
        expect(("replicas" in one["spec"]) == (name not in scaled), f"{case}: {name}: replicas and a scaler")
    for one in of_kind(objects, "ScaledObject"):
        expect(one["spec"]["minReplicaCount"] >= 1, f"{case}: may scale to zero")
        authentications = {auth["metadata"]["name"] for auth in of_kind(objects, "TriggerAuthentication")}
        modes = {}
        for trigger in one["spec"]["triggers"]:
            expect(trigger["authenticationRef"]["name"] in authentications, f"{case}: no such TriggerAuthentication")
            modes[trigger["metadata"]["mode"]] = trigger["metadata"]
            channel = one["spec"]["scaleTargetRef"]["name"].removesuffix("-worker").rsplit("-", 1)[-1]
            expect(trigger["metadata"]["queueName"] == f"watchword.{channel}", f"{case}: wrong queue")
        expect(set(modes) == {"QueueLength", "MessageRate"}, f"{case}: triggers {set(modes)}")
    budgets = {}
    for one in of_kind(objects, "PodDisruptionBudget"):
        pods = selected(one["spec"]["selector"]["matchLabels"])
        expect(len(pods) == 1, f"{case}: a budget is for {len(pods)} Deployments")
        budgets[pods[0]["metadata"]["name"]] = one
    for name, one in names.items():
        least = one["spec"].get("replicas", 2)
        expect((name in budgets) == (least > 1), f"{case}: {name}: {least} replicas and a budget: {name in budgets}")
    for one in of_kind(objects, "PodMonitor"):
        jobs = {pod["spec"]["template"]["metadata"]["labels"].get(one["spec"]["jobLabel"]) for pod in deployments}
        expect(jobs == {"watchword"}, f"{case}: the jobs are {jobs}")
        expect(len(selected(one["spec"]["selector"]["matchLabels"])) == len(deployments), f"{case}: scrapes not all")
        for endpoint in one["spec"]["podMetricsEndpoints"]:
            expect(all(endpoint["port"] in ports(pod) for pod in deployments), f"{case}: scrapes no port")
    policies = of_kind(objects, "NetworkPolicy")
    if policies:
        expect(len(policies) == len(deployments), f"{case}: {len(policies)} policies")
    for one in policies:
        pods = selected(one["spec"]["podSelector"]["matchLabels"])
        expect(len(pods) == 1, f"{case}: a policy is for {len(pods)} Deployments")
        expect(one["spec"]["policyTypes"] == ["Ingress", "Egress"], f"{case}: a policy that leaves a way open")
        for rule in one["spec"].get("ingress", []):
            expect(rule.get("from"), f"{case}: {one['metadata']['name']} lets everybody in")
        delivers = any(role.endswith("worker") for role in pods[0]["spec"]["template"]["spec"]["containers"][0]["args"])
        out = {port["port"] for rule in one["spec"]["egress"] for port in rule["ports"]}
        expect((443 in out) == delivers, f"{case}: {one['metadata']['name']} gets out to {sorted(out)}")
        for rule in one["spec"]["egress"]:
            expect(rule.get("to"), f"{case}: {one['metadata']['name']} gets out to any address on {rule['ports']}")
    return services


# --- Routing.


def fits(rule, path):
    kind, value = rule
    if kind in ("Prefix", "PathPrefix"):
        return path == value or path.startswith(value.rstrip("/") + "/")
    if kind == "Exact":
        return path == value
    return re.search(value, path) is not None


def rules_of(case, objects):
    """Returns [((type, path), Service)] of Ingress and HTTPRoute."""
    rules = []
    for one in of_kind(objects, "Ingress"):
        for path in one["spec"]["rules"][0]["http"]["paths"]:
            rules.append(((path["pathType"], path["path"]), path["backend"]["service"]["name"]))
    for one in of_kind(objects, "HTTPRoute"):
        for rule in one["spec"]["rules"]:
            expect(len(rule["backendRefs"]) == 1, f"{case}: a rule has several backends")
            for match in rule["matches"]:
                rules.append(((match["path"]["type"], match["path"]["value"]), rule["backendRefs"][0]["name"]))
    return rules


def check_routes(case, objects, services, receipts):
    rules = rules_of(case, objects)
    if not rules:
        return
    for role, path in routes_of_the_crates():
        if role == "sms-worker" and not receipts:
            continue
        real = re.sub(r"\{[^}]+\}", "k3J-_9", path)
        backends = [backend for rule, backend in rules if fits(rule, real)]
        expect(len(backends) == 1, f"{case}: {path} fits {len(backends)} rules")
        for backend in backends:
            expect(role in services.get(backend, []), f"{case}: {path} goes to {backend}, which is not {role}")
    for path in ("/", "/inbox", "/metrics", "/livez", "/healthz", "/v1", "/v1/verificationsx", "/v1/receiptsx/a"):
        expect(not [1 for rule, _ in rules if fits(rule, path)], f"{case}: {path} is let in")


# --- The configuration, checked by the program.


def contents(scratch, given=()):
    """Returns the content of a Secret's key: the given one, else one by its name, else a Watchword key. Always the same."""
    known = dict(given)
    for command in (["openssl", "genpkey", "-algorithm", "ed25519", "-out", scratch / "ed25519.pem"],
                    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                     "-subj", "/CN=relay", "-keyout", scratch / "relay.key", "-out", scratch / "relay.pem"]):
        made = run(command)
        if made.returncode:
            sys.exit(made.stderr)

    def of(secret, key):
        file = scratch / key
        made = file.read_text() if key.endswith(".pem") else base64.b64encode(os.urandom(32)).decode()
        return known.setdefault((secret, key), made)

    return of


def lay_out(deployment, objects, content, root):
    """Writes the files of a pod of the Deployment below `root`. Returns the configuration file, which refers
    to them, the variables, and the paths of the secrets."""
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    maps = {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "ConfigMap")}
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    secrets = []
    for volume in pod["volumes"]:
        folder = root / mounts[volume["name"]].lstrip("/")
        folder.mkdir(parents=True)
        if "secret" in volume:
            for item in volume["secret"]["items"]:
                (folder / item["path"]).write_text(content(volume["secret"]["secretName"], item["key"]))
                (folder / item["path"]).chmod(volume["secret"]["defaultMode"])
                secrets.append(f"{mounts[volume['name']]}/{item['path']}")
        else:  # the chart's own, or one of the operator: the relay's certificate authority
            name = volume["configMap"]["name"]
            data = maps.get(name, {"relay.pem": content(name, "relay.pem")})
            paths = {item["key"]: item["path"] for item in volume["configMap"].get("items", [])} or {key: key for key in data}
            for key, path in paths.items():
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_text(data[key])
    environment = {variable["name"]: variable.get("value", "a-secret") for variable in container["env"]}
    config = root / environment.pop("WATCHWORD_CONFIG").lstrip("/")
    config.write_text(config.read_text().replace('"/etc/watchword/', f'"{root}/etc/watchword/'))
    return config, environment, secrets


def keys_of(values, roles):
    """Returns the keys of the Secret that these roles need."""
    keys = {"sealing": [{"key": "sealing"}], "digest": [{"key": "digest"}], "index": "index", **values["keys"]}
    names = set()
    if roles != ["verifier"]:
        names |= {one["key"] for one in keys["sealing"]}
    if not any(role.endswith("worker") for role in roles):
        names |= {one["key"] for one in keys["digest"]} | {keys["index"]}
    return names


def check_program(case, objects, deployments, scratch, values):
    """Writes each pod's files and variables, and runs `watchword config check` on them."""
    content = contents(scratch)
    for one in deployments:
        what = f"{case}: {one['metadata']['name']}"
        container = one["spec"]["template"]["spec"]["containers"][0]
        root = pathlib.Path(tempfile.mkdtemp(dir=scratch))
        config, environment, secrets = lay_out(one, objects, content, root)
        names = [variable["name"] for variable in container["env"]]
        expect(len(names) == len(set(names)), f"{what}: a variable is set twice")
        text = config.read_text()
        for path in secrets:
            expect(f'"{root}{path}"' in text, f"{what}: mounts {path}, which its configuration does not read")
        roles = container["args"][1:]
        has = any("rabbitmq" in path for path in secrets)
        expect(has == (roles != ["verifier"]), f"{what}: {roles} and whether they have RabbitMQ's password")
        keys = {path.rsplit("/", 1)[1] for path in secrets if values["keys"]["existingSecret"] in path.split("/")}
        expect(keys == keys_of(values, roles), f"{what}: {roles} have the keys {sorted(keys)}")
        checked = run([PROGRAM, "-c", config, "config", "check", *roles], env=environment)
        expect(checked.returncode == 0, f"{what}: the program refuses its configuration: {checked.stderr}")
        lines = dict(line.split(None, 1) for line in checked.stdout.splitlines() if " " in line)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        expect(lines.get("engine") == "distributed", f"{what}: engine {lines.get('engine')}")
        expect(lines.get("admin") == f"0.0.0.0:{ports['admin']}", f"{what}: admin listens at {lines.get('admin')}")
        if "http" in ports:
            expect(lines.get("http") == f"0.0.0.0:{ports['http']}", f"{what}: http listens at {lines.get('http')}")
        for channel in ("sms", "email"):
            line = lines.get(channel, "")
            if f"{channel}-worker" in container["args"]:
                providers = ", ".join(sorted(values["config"][channel]["providers"]))
                expect(line.startswith(f"{providers} ("), f"{what}: {channel} by {line!r}, not {providers}")
            else:
                expect(not line, f"{what}: has {channel}: {line!r}")


# --- One case, and values that must be refused.


def check_case(chart, file, scratch):
    case = file.name.removesuffix("-values.yaml")
    values = yaml.safe_load(file.read_text())
    results = []
    for helm in HELMS:
        linted = run([helm, "lint", "--strict", chart, "-f", file])
        expect(linted.returncode == 0, f"{case}: {helm.name} lint: {linted.stdout}{linted.stderr}")
        first, second = render(helm, chart, file), render(helm, chart, file)
        if first.returncode:
            expect(False, f"{case}: {helm.name}: {first.stderr}")
            return
        expect(first.stdout == second.stdout, f"{case}: {helm.name} renders it differently each time")
        results.append(parsed(first.stdout))
    key = lambda one: (one["kind"], one["metadata"]["name"])
    expect(sorted(results[0], key=key) == sorted(results[1], key=key), f"{case}: Helm 3 and 4 differ")
    objects = results[1]
    deployments = of_kind(objects, "Deployment")
    roles = sorted(role for one in deployments for role in one["spec"]["template"]["spec"]["containers"][0]["args"][1:])
    wanted = ["issuer", "verifier"] + [f"{channel}-worker" for channel in ("sms", "email") if channel in values["config"]]
    expect(roles == sorted(wanted), f"{case}: runs {roles}")
    check_objects(case, objects)
    check_pods(case, deployments)
    services = check_references(case, objects, deployments)
    check_routes(case, objects, services, "public_url" in values["config"].get("sms", {}))
    check_program(case, objects, deployments, scratch, values)
    changed = scratch / "changed.yaml"
    changed.write_text(yaml.safe_dump({"config": {"ledger": {"retention_hours": 99}}}))
    sums = [{one["metadata"]["name"]: one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
             for one in of_kind(each, "Deployment")}
            for each in (objects, parsed(render(HELMS[1], chart, file, changed).stdout))]
    expect(all(sums[0][name] != sums[1][name] for name in sums[0]), f"{case}: a new configuration is no rollout")
    print(f"{case}: {len(objects)} objects, {len(deployments)} Deployments")


def check_refusals(chart, scratch):
    minimal = chart / "ci/minimal-values.yaml"
    cases = yaml.safe_load((ROOT / "tests/operate/hostile.yaml").read_text())
    for case in cases:
        file = scratch / "hostile.yaml"
        file.write_text(yaml.safe_dump(case["values"]))
        apis = [api for api in APIS if api != case.get("without")]
        for helm in HELMS:
            result = render(helm, chart, minimal, file, apis=apis)
            expect(result.returncode != 0, f"{helm.name} takes {case['values']}")
            expect(case["says"] in result.stderr, f"{helm.name} on {case['values']}: {result.stderr}")
    bare = render(HELMS[1], chart)
    expect(bare.returncode != 0 and "repository" in bare.stderr, "the defaults alone are taken")
    print(f"refused: {len(cases)} values")


def check_rest(chart, scratch):
    minimal, full = chart / "ci/minimal-values.yaml", chart / "ci/full-values.yaml"
    # A changed text is a rollout of the roles that render texts, and of no other.
    text = scratch / "text.yaml"
    text.write_text(yaml.safe_dump({"templates": {"de/sms.txt": "{{ app }}: {{ code }}"}, "api": {"enabled": False}, "ingress": {"enabled": False}}))
    sums = [{one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["metadata"]["annotations"]
             for one in of_kind(parsed(render(HELMS[1], chart, full, *more).stdout), "Deployment")}
            for more in ([text], [text, another_text(scratch)])]
    for component, annotations in sums[0].items():
        changed = annotations.get("checksum/templates") != sums[1][component].get("checksum/templates")
        expect(changed == (component != "verifier"), f"a changed text and {component}: {changed}")
    # Without the monitoring CRDs the same values still install, and the notes say what is missing.
    objects = parsed(render(HELMS[1], chart, full, apis=["gateway.networking.k8s.io/v1"]).stdout)
    kinds = {one["kind"] for one in objects}
    expect("Deployment" in kinds and not kinds & {"PodMonitor", "PrometheusRule"}, f"without CRDs: {sorted(kinds)}")
    # Without named peers nobody is admitted.
    nobody = scratch / "nobody.yaml"
    nobody.write_text(yaml.safe_dump({"networkPolicy": {"apiFrom": [], "metricsFrom": []}}))
    policies = of_kind(parsed(render(HELMS[1], chart, full, nobody).stdout), "NetworkPolicy")
    expect(policies and not any("ingress" in one["spec"] for one in policies), "an empty list of peers lets some in")
    # Files are embedded byte for byte: Helm must not interpret the braces of an alert.
    objects = parsed(render(HELMS[1], chart, full).stdout)
    rules = of_kind(objects, "PrometheusRule")
    expect([one["spec"] for one in rules] == [yaml.safe_load((chart / "alerts/watchword.rules.yml").read_text())],
           "the rules are not those of the file")
    boards = {name: text for one in of_kind(objects, "ConfigMap") if one["metadata"]["labels"].get("grafana_dashboard")
              for name, text in one["data"].items()}
    expect(boards == {file.name: file.read_text() for file in (chart / "dashboards").glob("*.json")}, "dashboards")
    # A package without these files says so.
    bare = scratch / "bare"
    shutil.copytree(chart, bare)
    shutil.rmtree(bare / "alerts")
    result = render(HELMS[1], bare, full)
    expect("has no alerts/watchword.rules.yml" in result.stderr, f"without rules: {result.stderr}")
    # No more pods than the providers can serve: 100 a second at 12.5 a pod are 8, less than the 20 of maxReplicas.
    objects = parsed(render(HELMS[1], chart, chart / "ci/keda-values.yaml").stdout)
    most = {one["metadata"]["name"]: one["spec"]["maxReplicaCount"] for one in of_kind(objects, "ScaledObject")}
    expect(most == {"otp-watchword-sms-worker": 8, "otp-watchword-email-worker": 4}, f"most replicas: {most}")
    # Names do not exceed 63 characters.
    objects = parsed(render(HELMS[1], chart, full, name="a" * 53).stdout)
    expect(objects and all(len(one["metadata"]["name"]) <= 63 for one in objects), "a long release's names")
    # The notes, and the package with the files that it embeds.
    notes = run([HELMS[1], "install", "otp", chart, "--dry-run=client", "-f", minimal, "-n", NAMESPACE])
    expect(f"http://otp-watchword-verifier.{NAMESPACE}.svc" in notes.stdout, f"notes: {notes.stdout[-900:]}{notes.stderr}")
    for role in ("issuer", "verifier", "email-worker"):
        line = f"exec deployment/otp-watchword-{role} -- /usr/bin/watchword doctor {role}\n"
        expect(line in notes.stdout, f"notes: no {line}")
    for helm in HELMS:
        packed = run([helm, "package", chart, "-d", scratch])
        expect(packed.returncode == 0, f"{helm.name} package: {packed.stderr}")
        version = yaml.safe_load((chart / "Chart.yaml").read_text())["version"]
        listed = run(["tar", "tzf", scratch / f"watchword-{version}.tgz"]).stdout
        for file in ("values.schema.json", "README.md", "alerts/watchword.rules.yml"):
            expect(f"watchword/{file}" in listed, f"{helm.name} packs no {file}")
    # The README lists every value, and no other.
    readme = (chart / "README.md").read_text()
    told = set(re.findall(r"^\| `([^`]+)` \|", readme, re.M))
    values = yaml.safe_load((chart / "values.yaml").read_text())
    expect(told == set(leaves(values)), f"README and values.yaml differ: {sorted(told ^ set(leaves(values)))}")
    # Its defaults are those of values.yaml.
    defaults = re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", readme, re.M)
    expect(len(defaults) > 20, f"README: only {len(defaults)} defaults are read")
    for name, text in defaults:
        if name != "image.tag":
            expect(yaml.safe_load(text) == default_of(values, name), f"README: {name} is {text}, values.yaml: {default_of(values, name)}")


def another_text(scratch):
    """Writes values with a changed text."""
    file = scratch / "another.yaml"
    file.write_text(yaml.safe_dump({"templates": {"de/sms.txt": "{{ code }}: {{ app }}"}}))
    return file


def default_of(values, name):
    """Returns the default of a value, by its name in README.md."""
    for part in name.replace("ROLE", "issuer").split("."):
        values = values[part]
    return values


def leaves(values):
    """Returns the names of the values as in README.md: two levels, and `ROLE` for the roles."""
    roles = ("api", "issuer", "verifier", "smsWorker", "emailWorker")
    found = []
    for key, value in values.items():
        if key in roles:
            found += [f"ROLE.{inner}" for inner in value if inner != "enabled"]
        elif isinstance(value, dict) and value and key not in ("podSecurityContext", "securityContext"):
            found += [f"{key}.{inner}" for inner in value]
        else:
            found.append(key)
    return found + ["api.enabled"]


def stand_in(chart):
    """Adds stand-ins for rules and dashboards to a chart that lacks them, because the chart must embed any."""
    for file, text in (("alerts/watchword.rules.yml", STAND_IN_RULES), ("dashboards/watchword.json", '{"title": "{{x}}"}\n')):
        if not list((chart / file).parent.glob("*")):
            (chart / file).parent.mkdir()
            (chart / file).write_text(text)
            print(f"{file}: a stand-in")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--chart", type=pathlib.Path, default=ROOT / "helm/watchword")
    source = arguments.parse_args().chart.resolve()
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        chart = scratch / "watchword"
        shutil.copytree(source, chart)
        stand_in(chart)
        cases = sorted((chart / "ci").glob("*-values.yaml"))
        expect(len(cases) >= 7, f"only {len(cases)} cases")
        expect(len(routes_of_the_crates()) >= 5, "the crates' routes are not found")
        for file in cases:
            check_case(chart, file, scratch)
        check_refusals(chart, scratch)
        check_rest(chart, scratch)
    if failures:
        sys.exit(f"tests/chart: {len(failures)} failed")
    print("tests/chart: all held")


if __name__ == "__main__":
    main()
