"""Write constraints.txt: every package that crashchat[dev] brings into this environment, at its exact version.

Run it in an environment in which `make test` passed. Local version labels (+cpu) are dropped, so that an index may offer the
build for its machines.
"""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# The exact set that was tested; the Makefile and CI install with it. Written by .ci/constraints.py, not by hand.
# torch==2.13.0 without a label: on a machine without a GPU this is the CPU build, not gigabytes of CUDA.
"""


def closure(
    name: str,           # distribution
    extras: set[str],    # extras asked of it
    found: dict[str, set[str]],  # canonical name -> extras seen so far; extended
):
    "Collect what a distribution needs, with what that needs."
    key = canonicalize_name(name)
    if key in found and extras <= found[key]:
        return
    found.setdefault(key, set()).update(extras)
    for text in metadata.requires(name) or []:
        needed = Requirement(text)
        wanted = needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *extras})
        if wanted and installed(needed.name):
            closure(needed.name, set(needed.extras), found)


def installed(name: str) -> bool:
    "Whether a distribution is here; what only other platforms need is not."
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def line(name: str) -> str:
    "One pin."
    return f"{canonicalize_name(name)}=={Version(metadata.version(name)).public}"


if __name__ == "__main__":
    found: dict[str, set[str]] = {}
    closure("crashchat", {"dev"}, found)
    pins = sorted(line(name) for name in found if name != "crashchat")
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(pins) + "\n", encoding="utf-8")
