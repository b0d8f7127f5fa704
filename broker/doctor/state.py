"""The doctor's look at the state, and at what a run left in its folder."""

from __future__ import annotations

from collections.abc import Iterator

from broker.doctor.files import is_open_to_others
from broker.doctor.finding import Finding, bad, fine, warn
from broker.settings import Settings
from broker.store.inspection import StateView, look_into
from broker.store.records import StoreError


def look_at_state(settings: Settings) -> tuple[StateView | None, list[Finding]]:
    """Look at the state; None where there is none, or it cannot be read."""
    path = settings.state.path
    if not path.exists():
        if path.parent.is_dir():
            return None, [warn("state", f"{path}: none yet", "the first start of the broker makes it")]
        return None, [bad("state", f"{path.parent}: no such folder", "make it, or correct state.path")]
    loose = [file for file in path.parent.glob(path.name + "*") if is_open_to_others(file)]
    findings = [bad("state", f"{file}: others may read it", f"chmod 600 {file}") for file in loose]
    try:
        view = look_into(path)
    except StoreError as error:
        return None, [*findings, bad("state", str(error), "see docs/operating.md on backups")]
    return view, [*findings, *_describe_state(view)]


def _describe_state(view: StateView) -> Iterator[Finding]:
    runs = f"epoch {view.live_epoch} runs on it" if view.live_epoch else "no broker runs on it"
    yield fine("state", f"installation {view.installation}, schema {view.schema[0]}; {runs}")
    if view.schema[0] < view.schema[1]:
        yield warn(
            "state",
            f"its schema is {view.schema[0]}; this program knows {view.schema[1]}",
            "the next start brings it up to date; make a backup before",
        )
    mend = "see that Vault and the database answer; the running broker tries again"
    if not view.live_epoch:
        mend = "start the broker: it ends them"
    if view.owed_leases:
        yield bad("leases", f"{view.owed_leases} not confirmed dead: credentials may be alive", mend)
    if view.unfinished_calls:
        remedy = "start the broker: it ends what did not run and says what is in doubt"
        yield bad("calls", f"{view.unfinished_calls} left open by a broker that died", remedy)
    if view.in_doubt_calls:
        remedy = (
            "a running broker finds out; for NEEDS_HUMAN look at the target, then toolcrib calls resolve ID"
        )
        yield warn("calls", f"{view.in_doubt_calls} in doubt: nobody knows whether they happened", remedy)


def check_run_dir(settings: Settings, view: StateView | None) -> Iterator[Finding]:
    """Find sockets that a run left behind."""
    if view is not None and view.live_epoch:
        return
    left = sorted(path.name for path in settings.run_dir.rglob("*") if path.is_socket())
    if left:
        remedy = "the next start empties it"
        yield warn("run folder", f"{len(left)} sockets of an earlier run in {settings.run_dir}", remedy)
