"""A real slapd for the tests of directories: on loopback, in a folder of its own, gone when we are gone."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from pathlib import Path

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.dev_vault import DevVault
from credentials.errors import PartUnavailable
from credentials.secret import Secret
from tests.bundles.directory.handler.speech import Conversation, LdapRefused

SLAPD, SLAPADD = Path("/usr/sbin/slapd"), Path("/usr/sbin/slapadd")
SUFFIX = "dc=toolcrib,dc=test"
TOOLS = f"ou=tools,{SUFFIX}"
READERS = f"cn=readers,{SUFFIX}"
VAULT_DN = f"cn=vault,{SUFFIX}"
STATIC_DN = f"cn=reporter,{TOOLS}"

_SETTINGS = """\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/slapd.pid
argsfile {folder}/slapd.args
database mdb
suffix "{suffix}"
rootdn "cn=root,{suffix}"
rootpw {root_password}
directory {folder}/data
access to attrs=userPassword
  by dn.exact="{vault}" manage
  by anonymous auth
  by * none
access to dn.subtree="{suffix}"
  by dn.exact="{vault}" manage
  by users read
  by * none
"""
_ENTRIES = """\
dn: {suffix}
objectClass: dcObject
objectClass: organization
dc: toolcrib
o: Toolcrib

dn: {tools}
objectClass: organizationalUnit
ou: tools

dn: {vault}
objectClass: person
cn: vault
sn: vault
userPassword: {vault_password}

dn: {readers}
objectClass: groupOfNames
cn: readers
member: {vault}

dn: {static}
objectClass: person
cn: reporter
sn: reporter
userPassword: {static_password}
"""


class DevSlapd:
    """A directory with an administrator for Vault, a group, and one user whose password Vault may change.

    Attributes:
        port: On loopback.
        vault_password: Password of `VAULT_DN`, until it is rotated.
        static_password: Password of `STATIC_DN`, until Vault takes it over.
    """

    def __init__(self, run_dir: Path) -> None:
        self.port = 0
        self.vault_password = Secret(secrets.token_urlsafe(18))
        self.static_password = Secret(secrets.token_urlsafe(18))
        self._root_password = Secret(secrets.token_urlsafe(18))
        self._folder = run_dir / "slapd"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DevSlapd:
        try:
            if not SLAPD.exists():
                raise PartUnavailable("slapd is missing: run deploy/setup/ldap.sh")
            (self._folder / "data").mkdir(parents=True, mode=0o700)
            self.port = find_free_port()
            self._fill()
            self.resume()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """For Vault."""
        return f"ldap://{HOST}:{self.port}"

    @property
    def version(self) -> str:
        """For example "slapd 2.5.13"."""
        said = subprocess.run([str(SLAPD), "-VV"], capture_output=True, text=True, check=False).stderr
        words = said.split()
        return f"slapd {words[words.index('slapd') + 1]}" if "slapd" in words else "slapd"

    def resume(self) -> None:
        """Start the server; its data are those of before."""
        command = [str(SLAPD), "-d", "0", "-h", self.url, "-f", str(self._folder / "slapd.conf")]
        log = self._folder / "slapd.log"
        self._process = child_process.start(Launch(command, self._folder, log, signal.SIGTERM))
        for _ in attempts(10.0):
            if self._process.poll() is not None:
                break
            if self.can_bind(f"cn=root,{SUFFIX}", self._root_password):
                return
        raise PartUnavailable(f"slapd did not start: {child_process.read_end(log)}")

    def pause(self) -> None:
        """End the server; its data stay."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGTERM)
            self._process = None

    def stop(self) -> None:
        """End the server and remove its folder."""
        self.pause()
        shutil.rmtree(self._folder, ignore_errors=True)

    def introduce(self, vault: DevVault) -> None:
        """Tell Vault of this directory and of its administrator there."""
        vault.write(
            "ldap/config",
            url=self.url,
            binddn=VAULT_DN,
            bindpass=self.vault_password.reveal(),
            userdn=TOOLS,
            userattr="cn",
            schema="openldap",
        )

    # --- what tests ask ---
    def can_bind(self, name: str, password: Secret) -> bool:
        """Tell whether a user may log in with a password."""
        try:
            with Conversation.with_server(HOST, self.port) as conversation:
                conversation.bind(name, password.reveal())
                return conversation.who_am_i() == f"dn:{name}"
        except (LdapRefused, OSError):
            return False

    def list_users(self) -> list[str]:
        """List the names of the entries below `TOOLS`, without the one that is always there."""
        found = self._search(TOOLS, "(objectClass=person)", "1.1")
        names = [line.removeprefix("dn: ") for line in found if line.startswith("dn: ")]
        return [name for name in names if name != STATIC_DN]

    def list_readers(self) -> list[str]:
        """List the members of the group, without the one that is always there."""
        found = self._search(READERS, "(objectClass=groupOfNames)", "member")
        names = [line.removeprefix("member: ") for line in found if line.startswith("member: ")]
        return [name for name in names if name != VAULT_DN]

    def change(self, ldif: str) -> None:
        """Apply LDIF as the directory's own administrator."""
        self._run("ldapmodify", ldif)

    def _search(self, base: str, condition: str, attribute: str) -> list[str]:
        done = self._run("ldapsearch", "", "-LLL", "-o", "ldif-wrap=no", "-b", base, condition, attribute)
        return done.splitlines()

    def _run(self, program: str, text: str, *arguments: str) -> str:
        password = self._folder / "root-password"
        password.touch(mode=0o600)
        password.write_text(self._root_password.reveal())
        login = ["-x", "-H", self.url, "-D", f"cn=root,{SUFFIX}", "-y", str(password)]
        done = subprocess.run(
            [f"/usr/bin/{program}", *login, *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            env={"LDAPNOINIT": "1"},
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
        return done.stdout

    def _fill(self) -> None:
        names = {"suffix": SUFFIX, "tools": TOOLS, "vault": VAULT_DN, "static": STATIC_DN, "readers": READERS}
        settings, entries = self._folder / "slapd.conf", self._folder / "entries.ldif"
        passwords = {
            "vault_password": self.vault_password.reveal(),
            "static_password": self.static_password.reveal(),
        }
        root = {"root_password": self._root_password.reveal(), "folder": str(self._folder)}
        for path, text in (
            (settings, _SETTINGS.format(**names, **root)),
            (entries, _ENTRIES.format(**names, **passwords)),
        ):
            path.touch(mode=0o600)
            path.write_text(text)
        command = [str(SLAPADD), "-f", str(settings), "-l", str(entries)]
        child_process.run(Launch(command, self._folder, self._folder / "slapadd.log"))
