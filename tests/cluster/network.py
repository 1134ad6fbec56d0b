"""Hosts with cables that can be cut: network namespaces on a bridge of their own."""

from __future__ import annotations

import os
import shutil
import subprocess

from cluster.processes import in_namespace, kill_all

SEARCH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))


def required(program: str) -> str:
    """Path of a program.

    Raises
    ------
    RuntimeError
        If it is not installed.
    """
    found = shutil.which(program, path=SEARCH)
    if found is None:
        raise RuntimeError(f"{program} is not installed; `make system-packages` installs it")
    return found


class Network:
    """Hosts that reach each other over a bridge, and nothing else.

    Parameters
    ----------
    number : int
        0 to 255; becomes part of all names and of the addresses 10.77.NUMBER.HOST, so that several
        networks can exist at once.
    hosts : sequence of int
        Last parts of the addresses.
    """

    def __init__(self, number: int, hosts):
        self.number, self.hosts = number, tuple(hosts)
        self._bridge = f"em{number}br"

    def create(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("link", "set", self._bridge, "up")
        for host in self.hosts:
            self._create_host(host)

    def remove(self) -> None:
        """End everything that runs on the hosts, and the hosts; whatever of it exists."""
        for host in self.hosts:
            namespace = self.namespace(host)
            kill_all(lambda name=namespace: in_namespace(name))
            _ip("netns", "del", namespace, check=False)
            _ip("link", "del", self._cable(host), check=False)  # gone with its other end, if it had one
        _ip("link", "del", self._bridge, check=False)

    def cut(self, host: int) -> None:
        """Pull the cable: packets vanish, no connection is closed."""
        _ip("link", "set", self._cable(host), "down")

    def heal(self, host: int) -> None:
        _ip("link", "set", self._cable(host), "up")

    def address(self, host: int) -> str:
        return f"10.77.{self.number}.{host}"

    def namespace(self, host: int) -> str:
        return f"em{self.number}-h{host}"

    def inside(self, host: int, command) -> list[str]:
        """The command that runs `command` on a host.

        Not by `ip netns exec`: that mounts another /sys, without the cgroups that slurmd looks for.
        """
        return [required("nsenter"), f"--net=/run/netns/{self.namespace(host)}", *map(str, command)]

    def _cable(self, host: int) -> str:
        return f"em{self.number}v{host}"

    def _create_host(self, host: int) -> None:
        namespace, cable = self.namespace(host), self._cable(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", cable, "master", self._bridge, "up")
        _ip("-n", namespace, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", namespace, "link", "set", "eth0", "up")
        _ip("-n", namespace, "link", "set", "lo", "up")
        # Nothing is behind it; who looks for its own address asks for the route to the world.
        _ip("-n", namespace, "route", "add", "default", "via", self.address(254))


def _ip(*arguments: str, check: bool = True) -> None:
    result = subprocess.run(
        [required("ip"), *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if check and result.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {result.stderr.strip()}")
