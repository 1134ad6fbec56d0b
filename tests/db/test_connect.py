"""What comes of a database that cannot be used: one message each, which never shows the password."""

import contextlib
import socket
import time

import pymongo
import pytest
from pymongo.errors import AutoReconnect, BulkWriteError, OperationFailure

from em_blocks.db.address import scrub
from em_blocks.db.connect import connect, expand_uri, redacted, with_patience
from em_blocks.db.problems import is_outage, not_writable
from em_blocks.errors import DatabaseError
from mongods import ESCAPED, PASSWORD, authority, mongod, mongod_with_auth, mongod_with_tls

__all__ = ["authority", "mongod_with_auth", "mongod_with_tls"]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 1000)


def message(uri):
    with pytest.raises(DatabaseError) as caught, connect(expand_uri(uri)):
        pass
    text = str(caught.value)
    assert "\n" not in text and PASSWORD not in text and ESCAPED not in text
    return text


# -- addresses ----------------------------------------------------------------------------------


def test_a_password_in_a_variable_is_escaped_and_one_in_the_uri_is_not(monkeypatch):
    monkeypatch.setenv("SECRET", PASSWORD)
    monkeypatch.setenv("HOST", "h1:1,h2:2")
    uri = expand_uri("mongodb://ann:${SECRET}@$HOST/x?authSource=y")
    assert uri == f"mongodb://ann:{ESCAPED}@h1:1,h2:2/x?authSource=y"
    assert expand_uri(uri) == uri
    monkeypatch.setenv("WHOLE", uri)
    assert expand_uri("${WHOLE}") == uri


@pytest.mark.parametrize("uri", [
    f"mongodb://ann:{PASSWORD}@h:1/db?tls=true", f"mongodb://ann:{ESCAPED}@h:1/db?a=b@c",
    "mongodb://ann:wh?y@h:1/db", "mongodb://h:1/db?tlsCertificateKeyFilePassword=x9Qz",
])
def test_addresses_in_messages_have_no_login_and_no_options(uri):
    assert redacted(uri) == "mongodb://h:1/db"


def test_passwords_are_scrubbed_from_texts_in_either_spelling():
    expand_uri(f"mongodb://ann:{ESCAPED}@h/?tlsCertificateKeyFilePassword=k3yPhrase")
    text = f"login {PASSWORD} or {ESCAPED} with k3yPhrase failed"
    assert scrub(text) == "login *** or *** with *** failed"


def test_a_uri_is_read_from_a_private_file(tmp_path):
    path = tmp_path / "uri"
    path.write_text(f"mongodb://ann:{ESCAPED}@h:1\nsecond line\n")
    path.chmod(0o600)
    assert expand_uri(f"file:{path}") == f"mongodb://ann:{ESCAPED}@h:1"


@pytest.mark.parametrize(("mode", "words"), [(0o640, "chmod 600"), (0o604, "mode 0604")])
def test_a_file_that_others_may_read_is_refused(tmp_path, mode, words):
    path = tmp_path / "uri"
    path.write_text("mongodb://h:1")
    path.chmod(mode)
    with pytest.raises(DatabaseError, match=words):
        expand_uri(f"file:{path}")


def test_files_that_are_missing_empty_or_relative_are_explained(tmp_path):
    (tmp_path / "empty").touch(mode=0o600)
    for name, words in ((tmp_path / "none", "No such file"), (tmp_path / "empty", "is empty"),
                        ("uri", "not absolute")):
        with pytest.raises(DatabaseError, match=words):
            expand_uri(f"file:{name}")


@pytest.mark.parametrize(("uri", "words"), [
    (f"mongodb://ann:{PASSWORD}@h", "special characters escaped"),
    ("mongodb://h:99999", "Port must be an integer"),
    ("mongodb://h/?nonsens=1", "nonsens"),
    ("mongodb://h/?tls=perhaps", "tls"),
    ("mongodb://h/?tls=true&tlsCAFile=/no/such.pem", "No such file"),
])
def test_an_address_that_cannot_be_used_says_why(uri, words):
    assert words in message(uri) and "not a usable MongoDB address" in message(uri)


# -- logins -------------------------------------------------------------------------------------


def test_a_login_works_from_the_users_own_database_too(mongod_with_auth, monkeypatch):
    monkeypatch.setenv("SECRET", PASSWORD)
    for login, options in (("em", ""), ("reader", ""), ("local", "?authSource=em_blocks")):
        uri = expand_uri(f"mongodb://{login}:${{SECRET}}@{mongod_with_auth.address}/{options}")
        with connect(uri) as client:
            assert client.em_blocks.runs.count_documents({}) == 0


def test_a_wrong_password_and_a_user_of_another_database_are_explained(mongod_with_auth):
    for login in ("em:wrong", f"local:{ESCAPED}", f"nobody:{ESCAPED}"):
        text = message(f"mongodb://{login}@{mongod_with_auth.address}")
        assert "refuses the login" in text and "authSource=" in text and "does not answer" not in text


def test_a_login_that_is_missing_is_asked_for(mongod_with_auth):
    text = message(mongod_with_auth.address)
    assert "wants a login, and 'db_host' has none" in text and "EM_BLOCKS_DB_PASSWORD" in text


def test_a_user_who_may_only_read_is_named(mongod_with_auth):
    for user, words in (
        ("reader", "may read but not write"), ("stranger", "may neither read nor write")
    ):
        uri = f"mongodb://{user}:{ESCAPED}@{mongod_with_auth.address}"
        with connect(uri) as client:
            database = client.em_blocks
            with pytest.raises(OperationFailure) as caught:
                database.blocks.create_index("run")
            text = not_writable(database, caught.value)
        assert f"user '{user}' (of the database 'admin') {words}" in text
        assert "readWrite" in text and "lsid" not in text


def test_what_is_refused_later_is_a_message_too(mongod_with_auth):
    uri = f"mongodb://reader:{ESCAPED}@{mongod_with_auth.address}"
    with pytest.raises(DatabaseError, match="role readWrite on 'em_blocks'"), connect(uri) as client:
        client.em_blocks.runs.insert_one({})
    with pytest.raises(OperationFailure, match="unknown operator"), connect(uri) as client:
        client.em_blocks.runs.find_one({"a": {"$nonsense": 1}})


# -- TLS ----------------------------------------------------------------------------------------


def test_tls_works_with_the_authority_of_the_server(mongod_with_tls, authority):
    with connect(f"{mongod_with_tls.uri}/?tls=true&tlsCAFile={authority}/ca.pem") as client:
        assert client.test.c.count_documents({}) == 0


def test_a_server_that_requires_tls_is_recognized(mongod_with_tls):
    assert "add the option tls=true" in message(mongod_with_tls.uri)


def test_a_certificate_of_an_unknown_authority_is_not_trusted(mongod_with_tls):
    text = message(f"{mongod_with_tls.uri}/?tls=true")
    assert "certificate that is not trusted" in text and "tlsCAFile=" in text


def test_a_server_without_tls_is_recognized(mongod_with_auth):
    assert "leave tls=true out" in message(f"{mongod_with_auth.uri}/?tls=true")


# -- hosts --------------------------------------------------------------------------------------


def test_nobody_listens():
    text = message("127.0.0.1:1")
    assert "at mongodb://127.0.0.1:1 does not answer: 127.0.0.1:1: [Errno 111]" in text


def test_a_host_that_accepts_but_says_nothing():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert "no firewall is between" in message(f"127.0.0.1:{silent.getsockname()[1]}")


def test_an_unknown_host(monkeypatch):
    def unknown(*arguments, **options):  # without asking a name server
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    text = message("no-such-host:27017")
    assert "cannot be found" in text and "spelling of 'db_host'" in text


def test_replica_sets_of_another_name_and_without_primary(mongod_with_auth, tmp_path):
    assert "replica set that 'db_host' names" in message(f"{mongod_with_auth.uri}/?replicaSet=lab")
    with mongod(tmp_path, "--replSet", "rs0") as server:
        assert "without a primary" in message(server.uri)
        with pymongo.MongoClient(server.uri, directConnection=True) as client:
            member = {"_id": 0, "host": server.address}
            client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
        with connect(f"{server.uri}/?replicaSet=rs0", outage_s=20) as client:
            client.test.c.insert_one({})
        assert "replica set that 'db_host' names" in message(f"{server.uri}/?replicaSet=lab")


# -- patience -----------------------------------------------------------------------------------


def failing(*errors):
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return "done"

    return call


def interrupted(code):
    return BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": code, "errmsg": "x"}]})


def test_only_what_may_heal_is_repeated():
    away = [AutoReconnect("x"), OperationFailure("stopping", 11600), OperationFailure("cursor", 43),
            interrupted(91)]
    assert with_patience(failing(*away), 5) == "done"
    for error in (OperationFailure("no", 13), OperationFailure("no", 18),
                  OperationFailure("full", 14031), interrupted(14031)):
        assert not is_outage(error)
        with pytest.raises(type(error)):
            with_patience(failing(error), 5)


def test_an_outage_is_counted_from_its_first_failure_and_named():
    def call():
        time.sleep(0.3)
        raise AutoReconnect("nobody there")

    began = time.monotonic()
    with pytest.raises(DatabaseError, match=r"more than 0.2 s \('db_outage_s'\): nobody there"):
        with_patience(call, 0.2)
    assert time.monotonic() - began > 0.5  # at least one more after the first


def test_a_worker_waits_for_a_server_that_starts_late(tmp_path):
    with mongod(tmp_path) as server:
        server.kill()
        with contextlib.ExitStack() as stack, pytest.raises(DatabaseError, match="db_outage_s"):
            stack.enter_context(connect(server.uri, outage_s=1.5))
        server.start()
        with connect(server.uri, outage_s=20) as client:
            assert client.test.c.count_documents({}) == 0
