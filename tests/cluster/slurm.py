"""A real Slurm of three nodes on this one machine.

Every node is a slurmd of its own, under the name n1 to n3; all share this machine's host name, so
SLURMD_NODENAME is what tells them apart. With `namespaces` each node is a host of its own on a small
network whose cables can be cut; slurmctld, and whatever a test runs beside it, is on a fourth host.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from cluster.network import SEARCH, required
from cluster.processes import in_namespace, kill_all, with_variable
from cluster.slots import CONTROLLER, NODES, Slot, take_slot

FIRST_PORT = 17000
PORTS_PER_CLUSTER = 8
START_TIMEOUT_S = 60.0

CONFIG = """\
ClusterName=em{number}
SlurmctldHost=localhost({controller})
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=512
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,sched_min_interval=100000,batch_sched_delay=0
SwitchType=switch/none
# A node that comes back is used again without an administrator.
ReturnToService=2
# The sizes below, whatever this machine has.
SlurmdParameters=config_overrides
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=3
MessageTimeout=10
TreeWidth=50
CommunicationParameters=NoAddrCache{interfaces}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=em Nodes=n[1-3] Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""
# Without these every daemon listens on all interfaces. In a namespace there are only its own, and
# slurmctld would listen on that of the machine's name, 127.0.0.1, where no other host reaches it.
LOOPBACK_ONLY = ",NoCtldInAddrAny,NoInAddrAny"
NODE = "NodeName=n{n} NodeHostname=localhost NodeAddr={address} Port={port} CPUs=2 RealMemory=4096"


class Job(NamedTuple):
    """One line of `squeue`."""

    id: str
    name: str
    state: str  # as squeue says: R, PD, CG ...
    node: str


class Slurm:
    """Three nodes of two CPUs each in the partition ``em``; a context manager.

    Parameters
    ----------
    folder : Path
        For logs, state and spool; kept when the cluster stops.
    namespaces : bool
        Every node is a host of its own. Otherwise all are on 127.0.0.1, by their ports.
    """

    def __init__(self, folder: Path, *, namespaces: bool = False):
        self.folder, self.namespaces = Path(folder), namespaces
        self._slot: Slot | None = None
        self._daemons: dict[str, subprocess.Popen] = {}
        self._started: list[subprocess.Popen] = []

    # -- its life -----------------------------------------------------------------

    def __enter__(self) -> Slurm:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything and wait for three idle nodes.

        Raises
        ------
        RuntimeError
            If Slurm is not installed, this is not root, or a daemon ends; the message quotes its log.
        """
        for program in ("munged", "slurmctld", "slurmd", "srun"):
            required(program)
        self._slot = take_slot()
        try:
            self._prepare()
            self._start_munged()
            self.start_controller()
            for n in NODES:
                self.start_node(n)
            self.wait_idle()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End every daemon, job, and orphan of a job; nothing is left but `folder`."""
        if self._slot is None:
            return
        self._slot.clean()
        for process in self._started:
            process.wait()
        self._started.clear()
        self._daemons.clear()
        self._slot.release()
        self._slot = None

    def wait_idle(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until all nodes are up and run nothing."""
        self.wait_for_nodes("idle", *NODES, timeout_s=timeout_s)

    def wait_for_nodes(self, state: str, *nodes: int, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until sinfo shows `state` for these nodes; ``*`` after it (no answer) is the same."""
        deadline = time.monotonic() + timeout_s
        while any(self._states().get(n, "").rstrip("*") != state for n in nodes):
            self._check_daemons()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nodes {nodes} should be {state}: {self._states()}")
            time.sleep(0.1)

    # -- faults -------------------------------------------------------------------

    def stop_node(self, n: int) -> None:
        """End slurmd as an administrator does. Its jobs go on, as orphans."""
        daemon = self._daemons.pop(f"n{n}")
        daemon.terminate()
        daemon.wait()

    def kill_node(self, n: int) -> None:
        """Kill slurmd and everything that runs on the node, at once."""
        kill_all(lambda: self.processes_on(n))
        self._daemons.pop(f"n{n}").wait()

    def start_node(self, n: int) -> None:
        """Start slurmd (again).

        If Slurm had not yet seen that the node was gone, it takes the jobs that were there for alive.
        """
        # Tasks have this variable by themselves; with slurmd, its job steps have it too.
        environment = {**self.environment(), "SLURMD_NODENAME": f"n{n}"}
        self._daemons[f"n{n}"] = self._daemon(n, "slurmd", "-D", "-N", f"n{n}", env=environment)

    def stop_controller(self) -> None:
        """End slurmctld: jobs go on, but no command of Slurm is answered."""
        daemon = self._daemons.pop("slurmctld")
        daemon.terminate()
        daemon.wait()

    def start_controller(self) -> None:
        """Start slurmctld (again); it goes on with the jobs that it had."""
        self._daemons["slurmctld"] = self._daemon(CONTROLLER, "slurmctld", "-D")

    def cut(self, n: int) -> None:
        """Pull the network cable of a node (only with `namespaces`)."""
        self._slot.network.cut(n)

    def heal(self, n: int) -> None:
        self._slot.network.heal(n)

    def processes_on(self, n: int) -> list[int]:
        """Everything that runs on a node: slurmd, its job steps, their tasks."""
        if self.namespaces:
            return in_namespace(self._slot.network.namespace(n))
        here = with_variable("SLURMD_NODENAME", f"n{n}")
        return sorted(set(here) & set(with_variable("SLURM_CONF", str(self._slot.config))))

    # -- use ----------------------------------------------------------------------

    @property
    def address(self) -> str:
        """Address of the host of slurmctld, for scheduler and database."""
        return self.address_of(CONTROLLER)

    def address_of(self, host: int) -> str:
        """Address of a host: 1 to 3 for a node."""
        return self._slot.network.address(host) if self.namespaces else "127.0.0.1"

    @property
    def database_port(self) -> int:
        """A port on that host that is not Slurm's, nor of another cluster here."""
        return self._first_port + PORTS_PER_CLUSTER - 1

    @property
    def socket_folder(self) -> Path:
        """A short path, for sockets; gone when the cluster stops."""
        return self._slot.folder

    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to talk to this Slurm."""
        outer = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        return {**outer, "SLURM_CONF": str(self._slot.config), "PATH": SEARCH}

    def run_in(self, host: int, command, **popen) -> subprocess.Popen:
        """Start a command on a host: 1 to 3 for a node, `CONTROLLER` for that of slurmctld.

        It ends with the cluster at the latest.
        """
        popen.setdefault("env", self.environment())
        process = subprocess.Popen(self.inside(host, command), **popen)
        self._started.append(process)
        return process

    def inside(self, host: int, command) -> list[str]:
        """The command that runs `command` on a host."""
        return self._slot.network.inside(host, command) if self.namespaces else list(map(str, command))

    def call(self, *command: str) -> str:
        """Output of a command on the host of slurmctld.

        Raises
        ------
        RuntimeError
            If it fails; the message holds what it said.
        """
        process = self.run_in(
            CONTROLLER, command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        out, error = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit {process.returncode}: {error.strip()}")
        return out

    def squeue(self, *options: str) -> list[Job]:
        """Jobs that wait, run or complete."""
        lines = self.call("squeue", "-h", "-o", "%i|%j|%t|%N", *options).splitlines()
        return [Job(*line.split("|")) for line in lines]

    def scancel(self, *options: str) -> None:
        self.call("scancel", *options)

    # -- inside -------------------------------------------------------------------

    def _prepare(self) -> None:
        for name in ("state", *(f"spool.n{n}" for n in NODES)):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir(parents=True)
        self._slot.folder.mkdir(mode=0o755)
        if self.namespaces:
            self._slot.network.create()
        self._slot.config.write_text(self._configuration())

    def _configuration(self) -> str:
        first = self._first_port
        nodes = [NODE.format(n=n, address=self.address_of(n), port=first + n) for n in NODES]
        return CONFIG.format(
            number=self._slot.number, controller=self.address, port=first, munge=self._munge,
            folder=self.folder.resolve(), nodes="\n".join(nodes),
            interfaces="" if self.namespaces else LOOPBACK_ONLY,
        )

    @property
    def _first_port(self) -> int:
        return FIRST_PORT + self._slot.number * PORTS_PER_CLUSTER

    @property
    def _munge(self) -> Path:
        return self._slot.folder / "munge.socket"

    def _start_munged(self) -> None:
        """A munged of our own: the system's may be stopped, or belong to a real cluster."""
        folder = self._slot.folder
        key = folder / "munge.key"
        with open(os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(os.urandom(128))
        # --force: it warns of folders that others may write, /tmp for one.
        self._daemons["munged"] = self._daemon(
            CONTROLLER, "munged", "--foreground", "--force", f"--socket={self._munge}",
            f"--key-file={key}", f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/munged.seed",
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._munge.exists():
            self._check_daemons()
            if time.monotonic() > deadline:
                raise TimeoutError("munged opened no socket")
            time.sleep(0.02)

    def _daemon(self, host: int, program: str, *options: str, **popen) -> subprocess.Popen:
        """Started in the foreground, so that its end is seen; Ctrl-C is not for it."""
        with open(self.folder / f"{program}.out", "ab") as out:
            return self.run_in(
                host, [required(program), *options], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True, **popen,
            )

    def _check_daemons(self) -> None:
        for name, daemon in self._daemons.items():
            if daemon.poll() is not None:
                program = "slurmd" if name.startswith("n") else name
                log = (self.folder / f"{program}.out").read_text(errors="replace")
                raise RuntimeError(f"{name} ended with {daemon.returncode}: {log[-1000:]}")

    def _states(self) -> dict[int, str]:
        """State of every node as sinfo shows it; empty while slurmctld does not answer."""
        try:
            lines = self.call("sinfo", "-h", "-N", "-o", "%N %t").split()
        except RuntimeError:
            return {}
        return {int(name[1:]): state for name, state in zip(lines[::2], lines[1::2])}
