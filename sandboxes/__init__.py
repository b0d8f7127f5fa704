"""Where tools run: one sandbox per call, what makes it, what waits, its images, and its only way out.

    sandbox, outcome                     what a driver and a sandbox promise; what is asked and what comes out
    fleet, pool*, admission, nests       which driver serves a class; what waits; who gets a place
    docker_driver, docker_sandbox        sandboxes on the Docker Engine, by a runtime of `runtimes`
    bubblewrap_*, cgroups, folders       sandboxes without an engine, for development
    hardening, seccomp.json, init_guard  the measures, each with the attack that it stops
    container_init                       PID 1 in every sandbox: one file, because images get it whole
    stream, exchange, conversation       the bytes, the one call, and what a handler says in it
    artefacts                            the files that it gives back
    engine, engine_api, runsc, processes finding or starting an engine; what a call asks of it
    reaper                               what a dead broker or engine left
    images, image_*, rootfs              the images of base and bundles
    egress                               the way out

The only package that imports docker.
"""
