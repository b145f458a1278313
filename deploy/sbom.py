"""
What is shipped: all packages that an installation of ours consists of, from this environment.

    python -m deploy.sbom          a CycloneDX bill of materials, as JSON
    python -m deploy.sbom --pins   the same as requirements, one a line

Tools for development are in the environment, too, and are left out: what counts is what the extras
that people install ask for, and what those ask for in turn.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "coldfusion"
FILE = Path(__file__).parents[1] / "pyproject.toml"
# The ones of pyproject.toml that are for those who run it.
EXTRAS = frozenset({"client", "server", "train", "postgres", "s3", "oidc", "otel"})


def shipped() -> dict[str, set[str]]:
    """Return the names of what each package needs, by name; the project's own is among them."""
    found: dict[str, set[str]] = {}
    asked: dict[str, set[str]] = {}
    waiting = [(PROJECT, EXTRAS)]
    while waiting:
        name, extras = waiting.pop()
        more = set(extras) - asked.get(name, set())
        if name in found and not more:
            continue
        asked[name] = asked.get(name, set()) | more
        needs = found.setdefault(name, set())
        for requirement in _requirements(name, asked[name]):
            needed = canonicalize_name(requirement.name)
            if _is_here(needed):
                needs.add(needed)
                waiting.append((needed, frozenset(requirement.extras)))
    # Extras of the project that name other ones of it.
    found[PROJECT].discard(PROJECT)
    return found


def pins() -> Iterator[str]:
    """Yield what is shipped beside the project itself, as requirements."""
    for name in sorted(set(shipped()) - {PROJECT}):
        yield f"{name}=={_version(distribution(name))}"


def bill() -> Bom:
    """Return the bill of materials."""
    packages = shipped()
    components = {name: _component(name) for name in packages}
    bom = Bom(components=[components[name] for name in sorted(set(packages) - {PROJECT})])
    bom.metadata.component = components[PROJECT]
    for name, needs in packages.items():
        bom.register_dependency(components[name], [components[needed] for needed in sorted(needs)])
    return bom


def _requirements(name: str, extras: set[str]) -> Iterator[Requirement]:
    asked = _own(extras) if name == PROJECT else distribution(name).requires or ()
    for requirement in map(Requirement, asked):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *extras}):
            yield requirement


def _own(extras: set[str]) -> list[str]:
    """Return what the project asks for by now, which an older installation may not know."""
    project = tomllib.loads(FILE.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(text for extra in extras for text in optional[extra])]


def _is_here(name: str) -> bool:
    """Return whether a package is installed; some are for other systems, whatever markers say."""
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _component(name: str) -> Component:
    package = distribution(name)
    version = _version(package)
    licence = package.metadata.json.get("license_expression")
    return Component(
        type=ComponentType.APPLICATION if name == PROJECT else ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"{name}=={version}",
        purl=PackageURL("pypi", None, name, version),
        licenses=[LicenseFactory().make_from_string(str(licence))] if licence else (),
    )


def _version(package: Distribution) -> str:
    """Return the version without the name of a build, as torch has them: it is one release."""
    return package.version.split("+", 1)[0]


def main() -> None:
    """Write to standard output what the command line asks for."""
    if "--pins" in sys.argv[1:]:
        sys.stdout.write("".join(f"{line}\n" for line in pins()))
    else:
        sys.stdout.write(JsonV1Dot6(bill()).output_as_string(indent=2) + "\n")


if __name__ == "__main__":
    main()
