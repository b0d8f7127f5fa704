"""Where tools run: one hardened container per call, its images, its engine, and its only way out.

    outcome, docker_driver, docker_sandbox   a sandbox: what is asked of it, how it is made, used and ended
    hardening, seccomp.json                  the measures, each with the attack that it stops
    container_init                           PID 1 in the container
    conversation, engine_calls               the engine's stream and its few calls
    engine, images, rootfs, processes        finding or starting an engine; what runs in it
    egress                                   the way out

The only package that imports docker.
"""
