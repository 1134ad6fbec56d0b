"""What is wrong with a database that refuses or does not answer, in the words of its users.

MongoDB and its client say it by codes, or only by texts of the operating system and of OpenSSL; the
patterns are of pymongo 4 against servers of version 6, each as a real server gave it.
"""

from __future__ import annotations

import re

from pymongo.database import Database
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    OperationFailure,
    PyMongoError,
)

from em_blocks.db.address import redacted, scrub

UNAUTHORIZED, AUTHENTICATION_FAILED, ATLAS_FAILED = 13, 18, 8000
OUT_OF_DISK = 14031
CURSOR_NOT_FOUND, CURSOR_KILLED = 43, 237
# A server that stops, or is no longer the primary, and peers that it cannot reach.
_AWAY = {
    6, 7, 89, 91, 134, 189, 9001, 10107, 11600, 11602, 13435, 13436, CURSOR_NOT_FOUND, CURSOR_KILLED,
}

_WHY = "Finished blocks are recorded there, so nothing can start without it."

_UNTRUSTED = (
    "shows a certificate that is not trusted here: {reason}. A login would go to a server that "
    "no known authority signed. Name the certificate of the authority that signed it, with the option "
    "tlsCAFile=/path/ca.pem in 'db_host', and the host as the certificate names it."
)
_NO_TLS = (
    "cannot agree on TLS with this client: {reason}. Either it does not speak TLS, then leave "
    "tls=true out of 'db_host', or it wants a certificate of the client, then name one with "
    "tlsCertificateKeyFile=/path/client.pem."
)
_WANTS_TLS = (
    "closes every connection at once: {reason}. That is how a server which requires TLS treats a "
    "client without it: add the option tls=true to 'db_host' (and tlsCAFile=/path/ca.pem for a "
    "private authority). Or the port is that of another service."
)
_UNKNOWN_HOST = (
    "cannot be found: {reason}. No such host is known here. Check the spelling of 'db_host', and on "
    "a cluster that its nodes resolve the name too."
)
_OTHER_SET = (
    "is no member of the replica set that 'db_host' names: {reason}. The option replicaSet= must be "
    "the set's own name; leave it out for a server that stands alone."
)
_NO_PRIMARY = (
    "is a replica set without a primary, which alone takes writes: {reason}. Look at rs.status() in "
    "mongosh: the set is not initiated, elects just now, or has lost most of its members. With "
    "directConnection=true in 'db_host', name the primary, or leave that option out."
)
_NOBODY = (
    "does not answer: {reason}. No server listens there. Check 'db_host' and that mongod runs, with an "
    "address in its bindIp that can be reached from here; without 'db_host' a private server is "
    "started."
)
_SILENT = (
    "does not answer: {reason}. Check 'db_host', that mongod runs, and that no firewall is between; "
    "without 'db_host' a private server is started."
)
# What the client says, by what is wrong; the first that is found counts.
_SIGNS = {
    r"CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    r"SSL handshake failed|\[SSL": _NO_TLS,
    r"connection closed|reset by peer": _WANTS_TLS,
    r"not known|nodename nor servname|name resolution|DNS|No address associated": _UNKNOWN_HOST,
    r"set members? available|configured to connect to a replica set named": _OTHER_SET,
    r"Primary\(\)|for writes|not primary|not master": _NO_PRIMARY,
    r"refused": _NOBODY,
    r"": _SILENT,
}


def is_outage(error: PyMongoError) -> bool:
    """Return whether `error` may end when the server is back; a refusal or a full disk does not."""
    if isinstance(error, ConnectionFailure):
        return True
    if isinstance(error, BulkWriteError):
        found = [*error.details["writeErrors"], *error.details["writeConcernErrors"]]
        return any(one["code"] in _AWAY for one in found)
    return isinstance(error, OperationFailure) and error.code in _AWAY


def is_refusal(error: PyMongoError) -> bool:
    """Return whether the server does not let this user do it, whatever it is asked later."""
    refusals = {UNAUTHORIZED, AUTHENTICATION_FAILED, ATLAS_FAILED, OUT_OF_DISK}
    return isinstance(error, OperationFailure) and error.code in refusals


def unreachable(uri: str, error: Exception) -> str:
    """Return one paragraph on a database that cannot be used."""
    if isinstance(error, OperationFailure) and not is_outage(error):
        says = _refusal(error)
    else:
        says = _silence(uri, _reason(str(error)))
    return scrub(f"The database at {redacted(uri)} {says} {_WHY}")


def lost(what: str, error: PyMongoError) -> str:
    """Return one paragraph on a database that was lost, of which `what` tells the rest."""
    return scrub(
        f"The database {what}: {_reason(str(error))}. What it has confirmed is safe. Run the same "
        "command again when it is back: blocks without a record are done then."
    )


def _silence(uri: str, reason: str) -> str:
    problem = next(says for sign, says in _SIGNS.items() if re.search(sign, reason, re.IGNORECASE))
    if problem is _WANTS_TLS and re.search(r"[?&](tls|ssl)=true", uri):
        problem = _NO_TLS
    return problem.format(reason=reason)


def _reason(text: str) -> str:
    """Return what a client says, without its timeouts and the state of all servers."""
    text = re.sub(r"\s*\(configured timeouts:[^)]*\)", "", text)
    return re.split(r", Timeout: |, full error: ", text)[0][:300].rstrip(". ")


def _refusal(error: OperationFailure) -> str:
    reason = _reason(str(error))
    if error.code in (AUTHENTICATION_FAILED, ATLAS_FAILED):
        return (
            f"refuses the login: {reason}. The password is wrong, or there is no such user in the "
            "database where it is looked for: that of the option authSource=NAME in 'db_host', else "
            "the one named behind the host, else admin. Passwords in environment variables are "
            "escaped by em_blocks; elsewhere in a URI the characters :/?#[]@% must be (%40 for @)."
        )
    if error.code == UNAUTHORIZED and "requires authentication" in str(error):
        return (
            "wants a login, and 'db_host' has none. Give mongodb://USER:${EM_BLOCKS_DB_PASSWORD}@HOST "
            "and export the variable, or file:/path/to/a/private/file that holds the URI."
        )
    if error.code == UNAUTHORIZED:
        where = re.match(r"not authorized on (\S+)", reason)
        database = repr(where[1]) if where else "it"
        return (
            f"does not grant this user what is needed in {database}. Grant the role readWrite on "
            f"{database}, or name another 'db_name', or another user in 'db_host'."
        )
    if error.code == OUT_OF_DISK:
        return f"has no space left on its disk: {reason}. Free some on the server."
    return f"refused: {reason}. Check 'db_host'."


def not_writable(database: Database, error: PyMongoError) -> str:
    """Return one paragraph on a database that cannot be written: its user and their rights."""
    address = "{}:{}".format(*(database.client.address or ("?", "?")))
    if not (isinstance(error, OperationFailure) and error.code == UNAUTHORIZED):
        return unreachable(f"mongodb://{address}", error)
    users = database.client.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
    if not users:
        return unreachable(f"mongodb://{address}", error)
    names = " and ".join(f"{one['user']!r} (of the database {one['db']!r})" for one in users)
    may = "may read but not write" if _may_read(database) else "may neither read nor write"
    return (
        f"The user {names} {may} the database {database.name!r} at {address}. Blocks and synapses are "
        f"recorded there. Grant the role readWrite on {database.name!r} to this user, or name another "
        "user in 'db_host' or another 'db_name'."
    )


def _may_read(database: Database) -> bool:
    try:
        database["runs"].find_one({}, {"_id": 1})
    except OperationFailure:
        return False
    return True
