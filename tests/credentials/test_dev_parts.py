"""The development servers start, show leaks, and are gone when their parent is gone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from credentials import child_process
from credentials.child_process import Launch
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.errors import PartUnavailable
from tests.credentials.conftest import TAG, wanted

_PARENT = """
import os, sys
from pathlib import Path
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
postgres, vault = DevPostgres(Path(sys.argv[1])), DevVault(Path(sys.argv[1]))
postgres.start(); vault.start()
print(postgres.pid, vault.pid, flush=True)
os.kill(os.getpid(), 9)
"""


async def test_ends_its_servers_when_their_parent_is_killed(tmp_path: Path, dev_vault) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", _PARENT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    async with asyncio.timeout(10):
        while any(Path(f"/proc/{pid}").exists() and _is_alive(int(pid)) for pid in killed.stdout.split()):
            await asyncio.sleep(0.05)


def test_leaves_no_process_and_no_file_when_stopped(tmp_path: Path, dev_vault) -> None:
    with DevPostgres(tmp_path) as postgres, DevVault(tmp_path) as vault:
        pids = (postgres.pid, vault.pid)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert list(tmp_path.iterdir()) == []


def test_runs_postgresql_as_another_user_than_root(notes) -> None:
    assert Path(f"/proc/{notes.pid}").stat().st_uid != 0 or os.geteuid() != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
def test_lets_another_user_find_programs_below_a_closed_folder(tmp_path: Path) -> None:
    program = tmp_path / "closed" / "program"
    program.parent.mkdir(mode=0o700)
    program.touch(0o755)
    asked = "import os, sys; sys.exit(not (os.getuid() and os.access(sys.argv[1], os.R_OK | os.X_OK)))"
    command = [sys.executable, "-I", "-S", "-c", asked, str(program)]
    child_process.run(Launch(command, tmp_path, tmp_path / "log", uid=65534, search_folders=True))


async def test_shows_a_leak_of_each_kind(session, vault, notes, log_in) -> None:
    [lease] = await session.mint(TAG, wanted(), 60)
    await log_in(lease)
    seen = (vault.count_leases(), vault.count_tokens(), notes.count_v_roles(), notes.count_v_sessions())
    assert seen == (1, 1, 1, 1)


def test_issues_a_certificate_for_a_spiffe_id(vault) -> None:
    issued = vault.issue_certificate("spiffe://toolcrib.test/acme/agent/x", 3600, ["localhost", "127.0.0.1"])
    names = (
        x509.load_pem_x509_certificate(issued.cert_pem.encode())
        .extensions.get_extension_for_class(x509.SubjectAlternativeName)
        .value
    )
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [
        "spiffe://toolcrib.test/acme/agent/x"
    ]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert issued.key_pem.reveal().startswith("-----BEGIN EC PRIVATE KEY-----")


def test_installs_the_roles_of_a_bundle(own_vault, tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    file.write_text('[roles.a-b]\ntarget = "orders-db"\ngrants = [\'GRANT SELECT ON notes TO "{{name}}"\']\n')
    assert own_vault.install_roles(file) == ["a-b"]
    assert own_vault.read("database/roles/a-b")["data"]["db_name"] == "orders-db"


def test_names_the_role_whose_grant_is_refused(own_vault, tmp_path: Path) -> None:
    file = tmp_path / "roles.toml"
    file.write_text('[roles.a-b]\ntarget = "orders-db"\ngrants = ["DROP TABLE notes"]\n')
    with pytest.raises(ValueError, match=r"roles\.toml: roles\.a-b: .*DROP TABLE notes"):
        own_vault.install_roles(file)


def test_says_which_statement_of_a_script_failed(notes) -> None:
    with pytest.raises(PartUnavailable, match="no_such_table"):
        notes.run_script("SELECT 1;\nSELECT * FROM no_such_table;")


def _is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
