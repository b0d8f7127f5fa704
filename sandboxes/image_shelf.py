"""What is on an engine of our images: listed, verified, and the unused ones removed.

Rules:
    * tools are registered and run by an image's id; a name only helps people and builders to find one;
    * an image is ours when `StoredImage.find_flaw` finds nothing; nothing else is ever removed, whatever its
      name is;
    * what a registered version uses stays, and its base; so does what any container is made of, and what is
      young, because it may be about to be registered;
    * nothing is removed by force: an engine that says that an image is used is right.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

import docker.errors

from sandboxes import image_store
from sandboxes.engine import Engine
from sandboxes.hardening import LABEL_INSTALLATION
from sandboxes.image_store import (
    BASE_REPOSITORY,
    LABEL_BASE,
    LABEL_BUNDLE,
    LABEL_ON,
    PREFIX,
    StoredImage,
    bundle_repository,
    engine_errors,
    image_name,
)
from sandboxes.rootfs import ImageFailed, content_key


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an image.

    Attributes:
        kept: Why it stays; "" when it goes.
    """

    image: StoredImage
    kept: str


def list_images(engine: Engine) -> list[StoredImage]:
    """List what is ours or has a name or label of ours: bases first, then bundles by name, newest first.

    Raises:
        ImageFailed: The engine does not answer.
    """
    with engine_errors("the list of images"):
        found = [
            image_store.inspect(engine, item["Id"]) for item in engine.client.images() if _may_be_ours(item)
        ]
    images = [image for image in found if image is not None]
    images.sort(key=lambda image: image.id)
    images.sort(key=lambda image: image.since.timestamp() if image.since else 0.0, reverse=True)
    return sorted(images, key=lambda image: (image.kind, image.bundle))


def find_image(engine: Engine, reference: str) -> StoredImage:
    """Find an image by its id, the beginning of its id, or its name.

    Raises:
        ImageFailed: The engine does not have it, or does not answer.
    """
    with engine_errors(f"image {reference}"):
        found = image_store.inspect(engine, reference)
    if found is None:
        raise ImageFailed(f"the engine has no image {reference!r}; `toolcrib images list` names what it has")
    return found


def find_problems(engine: Engine, image: StoredImage) -> list[str]:
    """Say what is wrong with an image; reads all of it.

    Raises:
        ImageFailed: The engine does not answer.
    """
    flaw = image.find_flaw()
    if flaw is not None:
        names = [f"the name {tag} leads to it, but it {flaw}" for tag in image.tags if tag.startswith(PREFIX)]
        return names or [flaw]
    wanted = name_of(image)
    problems = [
        f"the name {tag} leads to it, but its own is {wanted}: the name was moved"
        for tag in image.tags
        if tag.startswith(PREFIX) and tag != wanted
    ]
    with engine_errors(f"image {image.id}"):
        content = image_store.sum_up_image(engine, image.id)
    if content.base != image.content.base:
        problems.append(
            f"its base sums up to {content.base[:16]}…, but its label says {image.content.base[:16]}…"
        )
    if content.bundle != image.content.bundle:
        problems.append(
            f"its bundle sums up to {content.bundle[:16]}…, but its label says {image.content.bundle[:16]}…"
        )
    return problems


def name_of(image: StoredImage) -> str:
    """Give the name that an image of ours should have."""
    repository = BASE_REPOSITORY if LABEL_BASE in image.labels else bundle_repository(image.bundle)
    return image_name(repository, image.key)


def find_installations(engine: Engine) -> set[str]:
    """Find the installations that have containers on the engine now.

    Raises:
        ImageFailed: The engine does not answer.
    """
    with engine_errors("the list of containers"):
        containers = engine.client.containers(all=True, filters={"label": LABEL_INSTALLATION})
    return {str(container["Labels"][LABEL_INSTALLATION]) for container in containers}


def plan_removal(
    engine: Engine, used: Mapping[str, Collection[str]], older_than: timedelta, now: datetime
) -> list[Fate]:
    """Say of every image of ours whether it goes, and why it stays.

    Args:
        engine: Where they are.
        used: Names of the registered versions that use an image, by image id: of every tenant of every
            installation that has its images on this engine.
        older_than: Younger ones stay.
        now: The time, UTC.

    Raises:
        ImageFailed: The engine does not answer.
    """
    images = [image for image in list_images(engine) if image.kind != "foreign"]
    with engine_errors("the list of containers"):
        running = {str(container["ImageID"]) for container in engine.client.containers(all=True)}
    fates = {image.id: _find_reason(image, used, running, now - older_than) for image in images}
    for image in images:
        base = image.labels.get(LABEL_ON)
        if base in fates and fates[image.id] and not fates[base]:
            fates[base] = "a bundle's image stands on it"
    return [Fate(image, fates[image.id]) for image in images]


def remove(engine: Engine, fates: Iterable[Fate]) -> list[tuple[StoredImage, str]]:
    """Remove what a plan says; bundles before bases.

    Returns:
        What could not be removed, with the reason.

    Raises:
        ImageFailed: The engine does not answer.
    """
    doomed = [fate.image for fate in fates if not fate.kept]
    left = []
    for image in sorted(doomed, key=lambda image: LABEL_BUNDLE not in image.labels):
        with engine_errors(f"image {image.id}"):
            try:
                _remove(engine, image)
            except docker.errors.APIError as error:
                if error.status_code != 409:  # in use
                    raise
                left.append((image, str(error.explanation)))
    return left


def _remove(engine: Engine, image: StoredImage) -> None:
    """Take our names away, then the image, unless somebody gave it another name."""
    found = image_store.inspect(engine, image.id)
    if found is None or found.find_flaw() is not None:
        return
    foreign = [tag for tag in found.tags if not tag.startswith(PREFIX)]
    for tag in found.tags:
        if tag.startswith(PREFIX):
            engine.client.remove_image(tag, noprune=True)
    if not foreign and image_store.inspect(engine, image.id) is not None:
        engine.client.remove_image(image.id, noprune=True)


def _find_reason(
    image: StoredImage, used: Mapping[str, Collection[str]], running: Collection[str], before: datetime
) -> str:
    if image.id in used:
        return f"used by {', '.join(sorted(used[image.id]))}"
    if image.id in running:
        return "a container is made of it"
    if image.since is None:
        return "the engine does not know since when it is there"
    if image.since > before:
        return "is young"
    if image.labels.get(LABEL_BASE) == content_key():
        return "the next bundle is built on it"
    return ""


def _may_be_ours(item: Mapping[str, object]) -> bool:
    labels, tags = item.get("Labels") or {}, item.get("RepoTags") or ()
    assert isinstance(labels, Mapping)
    assert isinstance(tags, Collection)
    return bool({LABEL_BASE, LABEL_BUNDLE} & set(labels)) or any(str(tag).startswith(PREFIX) for tag in tags)
