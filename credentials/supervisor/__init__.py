"""The process that keeps the broker's session at Vault alive, and ends it when the broker dies.

The broker cannot end its session when it is killed, and a session that nobody ends keeps every login under it
alive for its whole period. So a process of its own renews the session, and watches the broker:

    broker  ── begin: which Vault, how it proves itself ──►  supervisor (credentials/supervisor/__main__.py)
            ── keep: the token, how often ────────────────►  renews it
            ◄─────────────── kept · renewed · failing · lost ──
            ── look · release ────────────────────────────►
        ╳   end of the socket, or of the process (pidfd)     ►  revokes it, until Vault knows it no more

Rules:
1. It holds the token and nothing else: no other descriptor of the broker's, no environment, no right of
   root's. The token comes over the socket; it is in no argument, environment or file.
2. It outlives the broker: a session of its own, deaf to the signals that a service manager or a terminal
   sends to everybody, not ended by the kernel with its parent.
3. The watch never waits for Vault: requests that stall run in another thread.
4. What the broker's death leaves behind ends within one period at most, and so does this process.
5. It needs the standard library only, and imports nothing heavy: this module must stay empty.

The broker's side of it is `credentials/supervisor/keeper.py`.
"""
