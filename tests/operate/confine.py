#!/usr/bin/python3
"""Runs the program of a systemd unit in a root folder under the unit's settings, without systemd: its user,
limits and environment, the parts of the file system that it may see and write, and the system calls and socket
families that it may use. Prints the settings that only systemd can apply.

Called by tests/operate/package as root in new namespaces (mount, process ids, host name, IPC):
confine.py ROOT UNIT [NAME=VALUE…], where the variables are added to the unit's environment.
"""
import ctypes
import os
import pwd
import resource
import shlex
import socket
import subprocess
import sys

import seccomp

# Settings that only systemd, a cgroup or a systemd filter can apply; the unit may use them.
BY_SYSTEMD = set(
    """Type ExecReload Restart RestartSec TimeoutStopSec PrivateUsers ProtectControlGroups ProtectHostname
    ProtectKernelLogs ProtectKernelModules ProtectClock KeyringMode LockPersonality RemoveIPC
    RestrictNamespaces RestrictRealtime RestrictSUIDSGID SystemCallArchitectures""".split()
)
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
PROT_WRITE, PROT_EXEC = 2, 4
libc = ctypes.CDLL(None, use_errno=True)


def read(unit):
    """Returns the section [Service]: every key with its values."""
    settings, section = {}, None
    for line in open(unit, encoding="utf-8"):
        line = line.strip()
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


def run(*words):
    subprocess.run(words, check=True)


def arrange(root, settings, one):
    """Mounts the file system of the program, read-only except for its state directory."""
    inside = lambda path: os.path.join(root, path.lstrip("/"))
    expect(one, "ProtectSystem", "strict")
    expect(one, "ProtectHome", "yes")
    expect(one, "PrivateTmp", "yes")
    expect(one, "PrivateDevices", "yes")
    expect(one, "ProtectProc", "invisible")
    expect(one, "ProtectKernelTunables", "yes")
    state = [inside("/var/lib/" + name) for name in settings.pop("StateDirectory", [])]
    mode = int(one("StateDirectoryMode"), 8)
    run("mount", "--bind", root, root)
    for folder in state:
        found = os.stat(folder).st_mode & 0o777
        assert found == mode, f"{folder} has mode {found:o}, wanted {mode:o}"
        run("mount", "--bind", folder, folder)
    run("mount", "-t", "proc", "-o", "nosuid,nodev,noexec,hidepid=invisible", "proc", inside("/proc"))
    run("mount", "--bind", inside("/proc/sys"), inside("/proc/sys"))
    run("mount", "-o", "remount,bind,ro", inside("/proc/sys"))
    for folder in ("/tmp", "/var/tmp"):
        run("mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "tmpfs", inside(folder))
    for folder in ("/home", "/root"):
        run("mount", "-t", "tmpfs", "-o", "mode=0,ro", "tmpfs", inside(folder))
    run("mount", "-t", "tmpfs", "-o", "mode=755,nosuid,noexec", "tmpfs", inside("/dev"))
    for device in ("null", "zero", "full", "random", "urandom"):
        open(inside(f"/dev/{device}"), "w", encoding="utf-8").close()
        run("mount", "--bind", f"/dev/{device}", inside(f"/dev/{device}"))
    run("mount", "-o", "remount,bind,ro", root)


def expect(one, key, wanted):
    found = one(key)
    assert found == wanted, f"{key}={found}: this script only knows {wanted}"


def calls(group):
    """Returns the system calls of a systemd group."""
    command = ["systemd-analyze", "syscall-filter", group]
    found = set()
    for line in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines():
        name = line.strip()
        if line.startswith(" ") and not name.startswith("#"):
            found |= calls(name) if name.startswith("@") else {name}
    return found


def filters(settings, one):
    """Builds the unit's system call filter."""
    expect(one, "SystemCallErrorNumber", "EPERM")
    expect(one, "MemoryDenyWriteExecute", "yes")
    allowed = calls("@default")
    for value in settings.pop("SystemCallFilter"):
        names = set().union(*(calls(name) for name in value.lstrip("~").split()))
        allowed = allowed - names if value.startswith("~") else allowed | names
    families = one("RestrictAddressFamilies").split()
    rules = seccomp.SyscallFilter(seccomp.ERRNO(1))
    for name in allowed - {"socket", "mmap", "mprotect"}:
        try:
            rules.add_rule(seccomp.ALLOW, name)
        except RuntimeError:
            pass  # this machine has no such system call
    for family in families:
        rules.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, getattr(socket, family)))
    both = PROT_WRITE | PROT_EXEC
    for bits in (0, PROT_WRITE, PROT_EXEC):
        rules.add_rule(seccomp.ALLOW, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, both, bits))
    rules.add_rule(seccomp.ALLOW, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
    return rules


def main():
    root, unit, *variables = sys.argv[1:]
    settings = read(unit)
    one = lambda key: settings.pop(key)[-1]
    user = one("User")
    expect(one, "Group", user)
    expect(one, "CapabilityBoundingSet", "")
    expect(one, "AmbientCapabilities", "")
    expect(one, "NoNewPrivileges", "yes")
    arrange(root, settings, one)
    rules = filters(settings, one)
    environment = dict(word.split("=", 1) for word in settings.pop("Environment") + variables)
    folder, umask = one("WorkingDirectory"), int(one("UMask"), 8)
    files, core = int(one("LimitNOFILE")), int(one("LimitCORE"))
    program = shlex.split(one("ExecStart"))
    unknown = set(settings) - BY_SYSTEMD
    assert not unknown, f"settings that this script does not know: {unknown}"
    print("by systemd alone:", *sorted(settings), flush=True)

    os.chroot(root)
    os.chdir(folder)
    os.umask(umask)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    entry = pwd.getpwnam(user)
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.initgroups(user, entry.pw_gid)
    os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
    os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    rules.load()
    os.execve(program[0], program, environment)


if __name__ == "__main__":
    main()
