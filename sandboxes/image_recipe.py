"""What both ways of building an image have in common: on an engine (images.py), and in folders (folders.py).

* which files a bundle's image may have (`check_files`);
* what byte-compiles a base or a bundle: a program for the image's own Python, run confined, and which
  files are taken from it afterwards (`compiled_names`). Nothing else that is there comes back.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from sandboxes.image_content import BUNDLE_FOLDER, LIBRARY_FOLDER
from sandboxes.image_wheels import MAX_LIBRARY_BYTES, check_names
from sandboxes.rootfs import ImageFailed

MAX_BUNDLE_BYTES = 32 * 1024 * 1024
MAX_COMPILED_BYTES = 512 * 1024 * 1024
COMPILE_SECONDS = 180
# One process, in sorted order, with a fixed hash seed: what is compiled must not depend on chance.
COMPILER = ("/usr/bin/python3", "-P", "-s", "-S", "-c")
COMPILER_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
COMPILE_BASE = (
    "import compileall, glob, py_compile, sys; M = py_compile.PycInvalidationMode.UNCHECKED_HASH;"
    "good = all([compileall.compile_dir(d, quiet=1, invalidation_mode=M)"
    " for d in [*glob.glob('/usr/lib/python3.*'), '/opt/toolcrib/lib']]);"
    "py_compile.compile('/opt/toolcrib/init.py', '/opt/toolcrib/init.pyc',"
    " doraise=True, invalidation_mode=M);"
    "py_compile.compile('/opt/toolcrib/container_relay.py', doraise=True, invalidation_mode=M);"
    "sys.exit(not good)"
)
# A file of a library that does not compile (a template, say) fails when it is imported, if ever.
COMPILE_BUNDLE = (
    "import compileall, py_compile, sys; M = py_compile.PycInvalidationMode.UNCHECKED_HASH;"
    f"import re; library = '/{BUNDLE_FOLDER}/{LIBRARY_FOLDER}'; others = re.compile('^' + library + '/');"
    "compileall.compile_dir(library, quiet=2, invalidation_mode=M);"
    f"sys.exit(not compileall.compile_dir('/{BUNDLE_FOLDER}', rx=others, quiet=1, invalidation_mode=M))"
)


def compiled_names(source: str) -> tuple[str, str]:
    """Say where the compiler may put what it makes of a source."""
    path = PurePosixPath(source)
    return f"{path.parent}/__pycache__/{path.stem}.cpython-311.pyc", f"{path.parent}/{path.stem}.pyc"


def check_files(files: Mapping[str, bytes]) -> None:
    """See that a bundle's files may be in its image.

    Args:
        files: Handler, generated code, and under "site-packages/" its dependencies, by path.

    Raises:
        ImageFailed: There are none, a path is not usable, or they are too large.
    """
    if not files:
        raise ImageFailed("the bundle has no handler files")
    for name in files:
        path = PurePosixPath(name)
        is_inside = path.parts and not path.is_absolute() and ".." not in path.parts
        if not is_inside or str(path) != name or "\0" in name:
            raise ImageFailed(f"{name!r}: is no plain path under the bundle; use for example handler.py")
        if any(str(parent) in files for parent in path.parents):
            raise ImageFailed(f"{name!r}: is below what is a file itself")
    library = {name for name in files if name.startswith(f"{LIBRARY_FOLDER}/")}
    check_names(files.keys() - library)
    check_names(name.removeprefix(f"{LIBRARY_FOLDER}/") for name in library)
    _check_size("files", sum(len(files[name]) for name in files.keys() - library), MAX_BUNDLE_BYTES)
    _check_size("dependencies", sum(len(files[name]) for name in library), MAX_LIBRARY_BYTES)


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise ImageFailed(f"the bundle's {what} are {size} bytes; the most is {most}")
