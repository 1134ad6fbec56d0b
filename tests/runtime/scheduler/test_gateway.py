"""The door of a run: real sockets, a real database, and guests of every kind."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pymongo
import pytest

from blockwise import wait_for
from dispatching import work
from em_blocks.db.commits import CommitWriter, WorkerIdentity
from em_blocks.db.connect import ServerError, connect
from em_blocks.db.runs import RunStore
from em_blocks.db.server import embedded_server
from em_blocks.errors import CommitRefusedError, ConfigError, RefusedError, SchedulerLostError
from em_blocks.runtime.protocol.job import Session
from em_blocks.runtime.protocol.wire import decode, encode, new_secret, proof
from em_blocks.runtime.scheduler import gateway as gateway_module
from em_blocks.runtime.scheduler import server as server_module
from em_blocks.runtime.scheduler.dispatch import Dispatcher
from em_blocks.runtime.scheduler.gateway import Gateway
from em_blocks.runtime.scheduler.worker_registry import WorkerRegistry
from em_blocks.runtime.worker.client import Client
from em_blocks.tasks.base import BlockReport

HELLO = {"host": "node-1", "pid": 1, "device": "cpu", "slot": "0.1"}


@pytest.fixture(scope="module")
def mongo(tmp_path_factory):
    with embedded_server(tmp_path_factory.mktemp("db")) as uri, connect(uri) as client:
        yield client


class Run:
    """One start of a run of few blocks, without workers."""

    def __init__(self, mongo, name, timeout_s, store, host, **options):
        self.work = work(run=name, **options)
        self.store = store(mongo, "em_blocks", name)
        self.store.create({}, epoch=0)
        self.epoch = self.store.take_lease("me:1:1")
        self.dispatcher = Dispatcher([self.work])
        self.progress = self.dispatcher.progress[0]
        self.registry = WorkerRegistry([self.store], [self.epoch])
        self.secret, self.events, self.clients = new_secret(), [], []
        self.gateway = Gateway(
            self.dispatcher, self.registry, host=host, port=0, secret=self.secret,
            timeout_s=timeout_s, on_event=self.events.append,
        )

    @property
    def address(self):
        return self.gateway.address

    def client(self, name="honest", **hello):
        client = Client(self.address, self.secret, {**HELLO, **hello, "worker": name})
        self.clients.append(client)
        return client

    def end(self):
        self.gateway.__exit__()
        for client in self.clients:
            wait_for(lambda c=client: c.lost)
            close(client)

    def finish(self):
        """Have an honest worker do all that is left."""
        client = self.client(f"last-{time.monotonic_ns()}", host="node-9")
        threading.Thread(target=do_all, args=(client,), daemon=True).start()
        assert self.gateway.finished.wait(30)
        self.gateway.check()

    def listed(self, worker):
        self.registry.flush()
        return self.store.workers.find_one({"_id": f"{self.store.run}/{worker}"})

    def commit(self, worker, index=(0, 0, 0)):
        """Record a block as `worker` would. Raises if it is refused."""
        writer = CommitWriter(
            self.store, self.work.grid, WorkerIdentity(worker, self.epoch, "cpu"), max_failures=1,
            outage_s=5.0, on_durable=lambda blocks: None,
        )
        writer.done(self.work.grid.block(index), time.time(), BlockReport())
        writer.close()


@pytest.fixture
def begin(mongo):
    """Begin a run; it is ended after the test."""
    begun = []

    def make(*, timeout_s=30.0, store=RunStore, host="127.0.0.1", **options):
        run = Run(mongo, f"run{time.monotonic_ns()}", timeout_s, store, host, **options)
        run.gateway.__enter__()
        begun.append(run)
        return run

    yield make
    for run in begun:
        run.end()


def close(client):
    client._lines.close()
    client._socket.close()


def do_all(client):
    done = []
    while (key := client.take(lambda: None)) is not None:
        client.done(key)
        done.append(key)
    return done


# -- guests who know nothing ---------------------------------------------------------------


@contextmanager
def knocking(address):
    """A bare connection: its socket, what it reads, and the nonce of the gateway."""
    with socket.create_connection(address, timeout=10) as bare, bare.makefile("rb") as lines:
        yield bare, lines, decode(lines.readline())["nonce"]


def hello(worker="w", **more):
    return {**HELLO, "worker": worker, "nonce": "0" * 64, **more}


def wrong_proofs(run, nonce):
    other = new_secret()
    return {
        "none": {},
        "a number": {"proof": 7},
        "of another secret": {"proof": proof(other, "worker", nonce, "w")},
        "of another worker": {"proof": proof(run.secret, "worker", nonce, "v")},
        "of another nonce": {"proof": proof(run.secret, "worker", other, "w")},
        "in the role of the scheduler": {"proof": proof(run.secret, "scheduler", nonce)},
        "characters that are none": {"proof": "\ud800"},
    }


def test_whoever_does_not_prove_the_secret_gets_no_word_and_the_run_goes_on(begin):
    run = begin()
    for kind in wrong_proofs(run, ""):
        with knocking(run.address) as (bare, lines, nonce):
            bare.sendall(encode(hello(**wrong_proofs(run, nonce)[kind])) + encode({"want": 1}))
            assert lines.read() == b"", kind
    assert len(run.gateway._connections) == 0 and run.progress.done == 0
    run.finish()
    assert run.progress.done == 4


def test_a_proof_that_was_overheard_is_worth_nothing(begin):
    run = begin()
    with knocking(run.address) as (bare, lines, nonce):
        overheard = encode(hello(proof=proof(run.secret, "worker", nonce, "w")))
        bare.sendall(overheard)
        assert "proof" in decode(lines.readline())
    wait_for(lambda: len(run.gateway._connections) == 0)
    with knocking(run.address) as (bare, lines, nonce):
        bare.sendall(overheard)
        assert lines.read() == b""


def test_the_secret_is_never_sent(begin):
    run = begin()
    with knocking(run.address) as (bare, lines, nonce):
        said = encode(hello(proof=proof(run.secret, "worker", nonce, "w")))
        bare.sendall(said)
        heard = lines.readline()
    assert run.secret.encode() not in said + heard + nonce.encode()


GARBAGE = {
    "bytes": bytes(range(256)) * 4 + b"\n",
    "a line without end": b"x" * 500_000,
    "nested lists": b"[" * 60_000 + b"\n",
    "null": b"null\n",
    "a number": b"1e999\n",
    "no names": b'{"worker": null, "proof": null}\n',
    "half a line": b'{"worker": "w", "pro',
    "http": b"GET / HTTP/1.1\r\nHost: scheduler\r\n\r\n",
    "nothing": b"",
}


def test_garbage_ends_its_own_connection_only(begin, monkeypatch, caplog):
    monkeypatch.setattr(server_module, "HELLO_S", 0.5)
    run = begin()
    for kind, said in GARBAGE.items():
        with knocking(run.address) as (bare, lines, _):
            try:
                bare.sendall(said)
                assert lines.read() == b"", kind  # "nothing" is waited for until HELLO_S is over
            except ConnectionError:
                pass  # it hung up with what was said unread
    run.finish()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_many_silent_guests_keep_nobody_out(begin):
    run = begin()
    guests = [socket.create_connection(run.address) for _ in range(200)]
    run.finish()
    for guest in guests:
        guest.close()


# -- guests who know the secret, and are broken -----------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        {"done": [[0, 0, 0, 3]]}, {"done": [[0, 9, 9, 9]]}, {"done": [[7, 0, 0, 0]]},
        {"done": [[-1, 0, 0, 0]]}, {"done": [[0, 0]]}, {"done": [0, 0, 0, 1]}, {"done": "x"},
        {"done": None}, {"done": [[0, 0, 0, float("inf")]]}, {"failed": {}}, {"failed": [0, 0, 0, 1]},
        {"want": 1, "done": [[0, 0, 0, 1e30]]}, {"bye": None}, {"ping": []},
    ],
    ids=str,
)
def test_nonsense_of_a_worker_neither_counts_nor_ends_the_run(begin, caplog, said):
    run = begin()
    with knocking(run.address) as (bare, lines, nonce):
        bare.sendall(encode(hello(proof=proof(run.secret, "worker", nonce, "w"))))
        assert decode(lines.readline())["timeout_s"] == 30.0
        bare.sendall(encode(said))
        bare.shutdown(socket.SHUT_WR)
        lines.read()
    assert (run.progress.done, run.progress.failed) == (0, 0)
    run.finish()
    assert (run.progress.done, run.progress.failed) == (4, 0)
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_two_workers_cannot_have_one_name(begin):
    run = begin()
    run.client("twin")
    with pytest.raises(RefusedError, match="takes no worker"):
        run.client("twin")
    run.finish()


# -- honest workers ----------------------------------------------------------------------------


def test_a_worker_is_listed_before_it_has_its_first_block(begin):
    run = begin()
    client = run.client()
    key = client.take(lambda: None)
    listed = run.store.workers.find_one({"_id": f"{run.store.run}/honest"})
    assert listed["state"] == "working" and listed["epoch"] == run.epoch
    assert (listed["host"], listed["slot"], listed["left"]) == ("node-1", "0.1", None)
    run.commit("honest", key[1:])
    assert run.store.counts()["done"] == 1


def test_every_worker_is_told_that_the_run_has_ended(begin):
    run = begin()
    idle, busy = run.client("idle"), run.client("busy")
    busy.take(lambda: None)
    run.gateway.close()
    for client in (idle, busy):
        assert client.take(lambda: None) is None or client is busy
        wait_for(lambda c=client: c.dismissed)
    assert run.listed("busy")["state"] == "left"
    assert run.listed("busy")["reason"] == "the run ended"


def test_after_a_stop_nobody_is_let_in_and_those_who_wait_may_go(begin):
    run = begin()
    busy, idle = run.client("busy"), run.client("idle")
    key = busy.take(lambda: None)
    run.gateway.stop()
    assert idle.take(lambda: None) is None and idle.dismissed
    with pytest.raises(RefusedError, match="takes no more workers"):
        run.client("late")
    assert not run.gateway.finished.is_set()
    busy.done(key)
    assert run.gateway.finished.wait(10)


def test_a_worker_that_has_time_to_leave_has_none_when_its_scheduler_is_gone(begin):
    run = begin()
    client = run.client()
    client.leave(within_s=500.0)  # its walltime ends in a while
    first = client.deadline
    client.leave(within_s=900.0)
    assert client.deadline == first
    run.gateway.close()
    wait_for(lambda: client.lost)
    assert client.deadline < time.monotonic() + 10


def test_a_worker_that_says_goodbye_leaves_its_blocks_to_others_unblamed(begin):
    run = begin(max_retries=0)
    client = run.client("leaver")
    client.take(lambda: None)
    client.bye("its time is over")
    run.finish()
    assert run.progress.done == 4
    assert run.listed("leaver")["state"] == "left"
    assert run.store.attempts.count_documents({"run": run.store.run}) == 0


def test_a_database_that_is_away_when_a_worker_joins_is_waited_for(begin, monkeypatch):
    monkeypatch.setattr(gateway_module, "ADMIT_AGAIN_S", 0.05)
    refusals = []

    class Away(RunStore):
        def admit_worker(self, document):
            if len(refusals) < 3:
                refusals.append(document)
                raise pymongo.errors.AutoReconnect("connection closed")
            super().admit_worker(document)

    run = begin(store=Away)
    assert issubclass(pymongo.errors.AutoReconnect, ServerError)
    run.finish()
    assert run.progress.done == 4 and len(refusals) == 3


# -- workers that are gone -----------------------------------------------------------------------


GUEST = """
import json, socket, sys
from em_blocks.runtime.protocol.wire import decode, encode, proof
host, port, secret = sys.argv[1:]
guest = socket.create_connection((host, int(port)))
lines = guest.makefile("rb")
nonce = decode(lines.readline())["nonce"]
hello = {"host": "node-2", "pid": 1, "device": "cpu", "slot": "0.1", "worker": "far", "nonce": "0"}
guest.sendall(encode({**hello, "proof": proof(secret, "worker", nonce, "far")}))
lines.readline()
guest.sendall(encode({"want": 1}))
print(json.dumps(decode(lines.readline())["block"]), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cable():
    """Another host, ``emgw``, with a cable to this one, 10.77.200.1."""
    if os.geteuid() != 0:
        pytest.skip("only root may make network namespaces")
    try:
        _ip("netns add emgw")
        _ip("link add emgw0 type veth peer name emgw1 netns emgw")
        _ip("addr add 10.77.200.1/24 dev emgw0")
        _ip("link set emgw0 up")
        _ip("-n emgw addr add 10.77.200.2/24 dev emgw1")
        _ip("-n emgw link set emgw1 up")
        yield "emgw0"
    finally:
        for command in ("link del emgw0", "netns del emgw"):
            subprocess.run(["ip", *command.split()], check=False, capture_output=True)


def _ip(command):
    subprocess.run(["ip", *command.split()], check=True)


def test_a_worker_whose_host_is_cut_off_is_lost_and_its_late_commit_is_refused(begin, cable):
    run = begin(host="10.77.200.1", timeout_s=2.0, max_retries=0)
    command = ["ip", "netns", "exec", "emgw", sys.executable, "-c", GUEST, *map(str, run.address)]
    with subprocess.Popen(
        [*command, run.secret], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as guest:
        held = json.loads(guest.stdout.readline())
        _ip(f"link set {cable} down")
        run.finish()  # without this worker, whose connection nobody closed
        guest.kill()
    assert run.progress.done == 4
    listed = run.listed("far")
    assert listed["state"] == "lost" and "does not answer" in listed["reason"]
    assert listed["blocks"] == []
    (loss,) = run.store.attempts.find({"run": run.store.run})
    assert (loss["error"]["type"], loss["block"]) == ("WorkerLost", "/".join(map(str, held[1:])))
    with pytest.raises(CommitRefusedError, match=r"no longer counts on the worker far \(lost"):
        run.commit("far", held[1:])
    assert any("far disconnected" in event for event in run.events)


def test_a_silent_worker_whose_host_answers_keeps_its_blocks(begin):
    run = begin(timeout_s=2.0)  # it may be in compiled code that lets no other thread run
    with knocking(run.address) as (bare, lines, nonce):
        bare.sendall(encode(hello(proof=proof(run.secret, "worker", nonce, "w"))))
        lines.readline()
        bare.sendall(encode({"want": 1}))
        held = decode(lines.readline())["block"]
        time.sleep(3.0)
        assert run.gateway.n_held == 1
        bare.sendall(encode({"done": [held]}))
        run.finish()
    assert run.progress.done == 4


def test_a_connection_that_breaks_is_the_fault_of_the_block_in_work(begin):
    run = begin(max_retries=0)
    client = run.client("dying")
    client.take(lambda: None)
    client._socket.shutdown(socket.SHUT_RDWR)
    run.finish()
    assert (run.progress.done, run.progress.failed) == (3, 1)
    assert run.listed("dying")["state"] == "lost"


def test_a_worker_that_takes_too_long_is_revoked(begin):
    run = begin(block_timeout_s=0.3, max_retries=1)
    client = run.client("slow")
    key = client.take(lambda: None)
    wait_for(lambda: client.dismissed and client.lost)
    assert client.deadline is not None  # after which the process ends, whatever it does
    assert run.listed("slow")["state"] == "revoked"
    (attempt,) = run.store.attempts.find({"run": run.store.run})
    assert attempt["error"]["type"] == "BlockTimeout"
    with pytest.raises(CommitRefusedError, match=r"\(revoked"):
        run.commit("slow", key[1:])
    run.finish()
    assert run.progress.done == 4


def test_a_block_that_no_worker_has_time_for_is_given_up(begin):
    run = begin(max_retries=0)
    client = run.client("short")
    key = client.take(lambda: None)
    client.bye("its walltime ended before it had done a single block", too_long=True)
    wait_for(lambda: run.progress.failed == 1)
    run.registry.flush()
    (attempt,) = run.store.attempts.find({"run": run.store.run})
    assert attempt["error"]["type"] == "BlockTimeout" and "walltime" in attempt["error"]["message"]
    assert attempt["block"] == "/".join(map(str, key[1:]))
    run.finish()
    assert run.progress.done == 3


def test_the_worker_of_a_slot_is_dismissed_and_no_other(begin):
    run = begin(max_retries=0)
    gone, stays = run.client("gone", slot="1.4"), run.client("stays", slot="1.5")
    gone.take(lambda: None)
    run.gateway.dismiss("1.4", "its command ended")
    wait_for(lambda: gone.lost)
    assert run.gateway.slots == {"1.5"} and stays.lost is None
    assert run.registry.vacated() == {"1.4"}
    run.finish()
    assert run.progress.done == 4


@pytest.mark.parametrize("worker", ["nobody", "somebody else's"])
def test_commits_of_an_unknown_worker_are_refused(begin, worker):
    run = begin()
    run.store.workers.insert_one({"_id": f"{run.store.run}/somebody else's", "state": "working",
                                  "run": run.store.run, "epoch": run.epoch - 1})
    with pytest.raises(CommitRefusedError, match="has not admitted"):
        run.commit(worker)
    assert run.store.counts()["done"] == 0


def test_a_worker_that_leaves_while_it_is_admitted_is_not_listed_as_working(begin):
    left = threading.Event()

    class Slow(RunStore):
        def admit_worker(self, document):
            left.wait(10)
            super().admit_worker(document)

    run = begin(store=Slow)
    client = run.client("brief")
    client._send(want=1)
    wait_for(lambda: run.gateway.n_held)
    client.bye("changed its mind")
    wait_for(lambda: len(run.gateway._connections) == 0)
    run.registry.flush()
    left.set()
    wait_for(lambda: run.store.workers.count_documents({"run": run.store.run}))
    wait_for(lambda: run.listed("brief")["state"] == "left")


# -- the worker's side ----------------------------------------------------------------------------


@contextmanager
def scheduler_that_falls_silent(secret, timeout_s):
    """It knows the secret, greets, and says nothing more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def greet():
            connection, _ = server.accept()
            kept.append(connection)
            connection.sendall(encode({"nonce": new_secret()}))
            theirs = decode(connection.recv(65536))
            connection.sendall(encode({
                "proof": proof(secret, "scheduler", theirs["nonce"]), "timeout_s": timeout_s,
                "ping_s": 0.1,
            }))

        def hang_up():
            for connection in kept:
                connection.shutdown(socket.SHUT_RDWR)
                connection.close()

        threading.Thread(target=greet, daemon=True).start()
        yield server.getsockname(), hang_up
        for connection in kept:
            connection.close()


def test_nothing_is_written_while_the_scheduler_is_silent():
    secret = new_secret()
    with scheduler_that_falls_silent(secret, timeout_s=0.5) as (address, hang_up):
        client = Client(address, secret, {**HELLO, "worker": "w"})
        client.wait_until_fresh()  # just greeted
        time.sleep(0.31)
        threading.Timer(0.5, hang_up).start()
        with pytest.raises(SchedulerLostError, match="the block is not written"):
            client.wait_until_fresh()
        assert client.take(lambda: None) is None and client.deadline is not None
        close(client)


def test_another_scheduler_at_the_address_is_refused(begin):
    run = begin()
    with pytest.raises(RefusedError, match="not the scheduler of this run, or it refused") as caught:
        Client(run.address, new_secret(), {**HELLO, "worker": "w"})
    assert caught.value.exit_code == 3


def test_a_server_that_does_not_prove_the_secret_is_refused():
    with scheduler_that_falls_silent(new_secret(), timeout_s=1.0) as (address, _):
        with pytest.raises(RefusedError, match="does not know the secret"):
            Client(address, new_secret(), {**HELLO, "worker": "w"})


@pytest.mark.parametrize("said", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b'{"nonce": 5}\n', b"{}\n"])
def test_whatever_else_listens_there_is_refused_in_words(said):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk():
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises(RefusedError, match="not the scheduler of this run"):
            Client(server.getsockname(), new_secret(), {**HELLO, "worker": "w"})


def worker_process(folder, address):
    """Exit code and last words of a worker with a session for `address` and some secret."""
    Session([], address, new_secret()).save(folder / "session.json")
    command = [sys.executable, "-m", "em_blocks.workers.block_worker", folder / "session.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (line,) = done.stderr.strip().splitlines()
    return done.returncode, line


def test_a_worker_says_in_one_paragraph_that_its_scheduler_cannot_be_reached(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    code, line = worker_process(tmp_path, address)
    assert code == 2
    assert line.startswith(f"error: The scheduler at 127.0.0.1:{address[1]} cannot be reached from")
    assert "'scheduler_host'" in line and "start the command again" in line


def test_a_worker_says_in_one_paragraph_that_its_session_is_of_another_start(begin, tmp_path):
    run = begin()
    code, line = worker_process(tmp_path, run.address)
    assert code == 3 and line.startswith("error: 127.0.0.1:") and "start the worker again" in line


# -- a gateway that cannot begin ---------------------------------------------------------------------


def gateway_at(host, port, dispatcher=None):
    return Gateway(
        dispatcher or Dispatcher([work()]), WorkerRegistry([], []), host=host, port=port,
        secret=new_secret(), timeout_s=1.0, on_event=print,
    )


@pytest.mark.parametrize("host", ["203.0.113.7", "no..host"])
def test_an_address_that_is_not_of_this_machine_is_named(host):
    with pytest.raises(ConfigError, match=f"cannot listen on {host}, port any"):
        gateway_at(host, 0).__enter__()


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: .*in use"):
            gateway_at("127.0.0.1", port).__enter__()


def test_a_scheduler_that_cannot_be_made_raises_and_does_not_hang():
    class Broken:
        def __enter__(self):
            raise RuntimeError("no memory for the grid")

        def __exit__(self, *exc):
            pass

    with pytest.raises(RuntimeError, match="no memory"):
        gateway_at("127.0.0.1", 0, Broken()).__enter__()
