"""Checks the workflows with actionlint and with these rules: each job declares its permissions and a timeout,
each action has a fixed version, no shell command contains an expression, and every file of the repository that a
command names exists.

$WATCHWORD_TOOLS/python/bin/python tests/operate/workflows.py
"""
import pathlib
import re
import subprocess
import sys

import yaml

TOOLS = pathlib.Path(sys.executable).parent
ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSION = re.compile(r"[\w./-]+@(v\d+|[0-9a-f]{40})")


def problems(workflow):
    if workflow.get("permissions") != {}:
        yield "the workflow as a whole must have no rights: permissions: {}"
    for name, job in workflow["jobs"].items():
        if not job.get("permissions"):
            yield f"{name} names no rights"
        if "timeout-minutes" not in job:
            yield f"{name} has no deadline"
        for step in job["steps"]:
            used, command = step.get("uses"), step.get("run", "")
            if used and not VERSION.fullmatch(used):
                yield f"{name}: {used} has no fixed version"
            if "${{" in command:
                yield f"{name}: an expression in a shell command: {command.strip()}"
            for path in re.findall(r"(?<![\w./-])(?:\.ci|packaging|tests|Containerfile)(?:/[\w.-]+)*", command):
                if not (ROOT / path).exists():
                    yield f"{name}: {path} does not exist"


def main():
    files = sorted((ROOT / ".github/workflows").glob("*.yml"))
    assert files, "there are no workflows"
    found = [f"{file.name}: {one}" for file in files for one in problems(yaml.safe_load(file.read_text()))]
    lint = [TOOLS / "actionlint", "-no-color", "-shellcheck=", "-pyflakes=", *files]
    linted = subprocess.run(lint, capture_output=True, text=True, check=False)
    if linted.returncode != 0:
        found.append(linted.stdout + linted.stderr)
    if found:
        sys.exit("tests/workflows: " + "\n".join(found))
    print(f"tests/workflows: {len(files)} checked")


main()
