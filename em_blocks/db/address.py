"""Where the database is: 'db_host' of a config as a URI, without showing its password to anybody."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote_plus, unquote_plus

from em_blocks.errors import DatabaseError

SCHEMES = ("mongodb://", "mongodb+srv://")
FILE = "file:"

_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")
# A login ends at the last @, since a password that was not escaped may hold one itself.
_LOGIN = re.compile(r"://.*@", re.DOTALL)
_SECRETS: set[str] = set()


def expand_uri(db_host: str) -> str:
    """Return the URI that a 'db_host' stands for: a host name, a URI with variables, or a private file.

    Raises
    ------
    DatabaseError
        If a variable is not set, or the file is missing, empty, or may be read by others.
    """
    uri = _from_file(db_host) if db_host.startswith(FILE) else _expanded(db_host)
    uri = uri if uri.startswith(SCHEMES) else f"mongodb://{uri}"
    remember(uri)
    return uri


def remember(uri: str) -> None:
    """Let `scrub` know the passwords of `uri`."""
    _SECRETS.update(_secrets_of(uri))


def redacted(uri: str) -> str:
    """Return `uri` without user, password and options, for messages."""
    scheme, _, rest = uri.partition("://")
    address, _, options = rest.partition("?")
    if "@" in options and "@" not in address:  # no options, but a password with a question mark
        address = options.rpartition("@")[2].partition("?")[0]
    return f"{scheme}://{address.rpartition('@')[2]}"


def scrub(text: str) -> str:
    """Return `text` with every password that this process was given as ``***``: for logs and records."""
    for secret in sorted(_SECRETS, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _from_file(db_host: str) -> str:
    path = Path(_expanded(db_host).removeprefix(FILE)).expanduser()
    if not path.is_absolute():
        raise DatabaseError(
            f"'db_host' names the file {str(path)!r}, which is not absolute: workers start in other "
            "folders and would look for it there. Give its whole path, file:/home/me/em_blocks.uri."
        )
    try:
        mode, lines = path.stat().st_mode & 0o777, path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise DatabaseError(
            f"'db_host' names the file {path}, which cannot be read ({error}). It holds the URI of the "
            "database in its first line, password included, so that no config and no shell does."
        ) from error
    if mode & 0o077:
        raise DatabaseError(
            f"The file {path} that 'db_host' names can be read by others than its owner (mode "
            f"{mode:04o}), and holds a password. Make it private: chmod 600 {path}"
        )
    if not lines:
        raise DatabaseError(f"The file {path} that 'db_host' names is empty; its first line is the URI.")
    return lines[0]


def _expanded(text: str) -> str:
    """Return `text` with environment variables filled in, those of the login escaped as URIs need it."""
    login = _LOGIN.search(text)
    end = login.end() if login else 0

    def value(found: re.Match) -> str:
        value = os.environ.get(found[1] or found[2])
        if value is None:
            raise DatabaseError(
                f"'db_host' uses the environment variable {found[0]}, which is not set. Export it in "
                "the shell (and in the job environment of a cluster)."
            )
        return quote_plus(value) if found.start() < end else value

    return _VARIABLE.sub(value, text)


def _secrets_of(uri: str) -> set[str]:
    """Every spelling of the passwords in a URI."""
    login, _, options = uri.partition("://")[2].rpartition("@")
    found = {login.partition(":")[2], *re.findall(r"Password=([^&]+)", options, re.IGNORECASE)}
    spellings = {spelling for one in found for spelling in (one, unquote_plus(one))}
    # What is shorter is part of common words.
    return {spelling for spelling in spellings if len(spelling) >= 4}
