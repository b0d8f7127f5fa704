"""Where tools run: one sandbox per call, what makes it, what waits, its images, and its only way out.

    sandbox, outcome                     what a driver and a sandbox promise; what is asked and what comes out
    fleet, pool*, admission, nests       which driver serves a class; what waits; who gets a place
    docker_driver, docker_sandbox        sandboxes on the Docker Engine, by a runtime of `runtimes`
    bubblewrap_*, cgroups, folders       sandboxes without an engine, for development
    hardening, seccomp.json, init_guard  the measures, each with the attack that it stops
    container_init, container_relay      PID 1 in every sandbox, and its way to the HTTP proxy
    stream, exchange, conversation       the bytes, the one call, and what a handler says in it
    artefacts                            the files that it gives back
    engine, engine_api, runsc, processes finding or starting an engine; what a call asks of it
    reaper                               what a dead broker or engine left
    images, image_*, rootfs              the images of base and bundles
    egress, proxy, child, keeper         the way out: the two processes behind it, and what keeps them running

The only package that imports docker.
"""
