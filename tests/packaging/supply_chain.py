"""What the installed core brings along: its bill of materials, licences, and known vulnerabilities.

Part of `make package`. The bill (CycloneDX, JSON) is left in `build/sbom.json`. Vulnerabilities are
asked of the package index; where it cannot be reached that is said, and is no failure.
"""

import json
import subprocess
import sys
from pathlib import Path

FREE = (
    "0BSD",
    "Apache",
    "BSD",
    "CC0",
    "CNRI-Python",
    "Historical Permission Notice",
    "HPND",
    "ISC",
    "MIT",
    "MPL",
    "Mozilla",
    "PSF",
    "Python",
    "Unlicense",
    "Zlib",
    "zlib",
)
"""Beginnings of licences that a user may ship: permissive ones, and the MPL, which is weak copyleft
by file. A package passes by any licence that it offers."""
LINKED = ("GCC-exception", "GPL-3.0-or-later WITH GCC-exception")
"""The run-time libraries of compilers, bundled in wheels of numpy and scipy."""
READ = {"protobuf": "BSD-3-Clause"}
"""Packages whose metadata name no licence: what their licence file says."""
ACCEPTED_VULNERABILITIES: dict[str, str] = {}
"""Id -> why it does not concern us."""


def check(python: Path, root: Path) -> None:
    """Judge the environment of an interpreter; ends the process with what is wrong."""
    bill = root / "build" / "sbom.json"
    bill.parent.mkdir(exist_ok=True)
    write_bill(python, root, bill)
    wrong = refused_licences(json.loads(bill.read_text()))
    if wrong:
        sys.exit(
            "licences that are not on the list of tests/packaging/supply_chain.py:\n"
            + "\n".join(wrong)
        )
    print(f"[package] {components(bill)} packages, licences fine: {bill.relative_to(root)}")
    audit(python)


def write_bill(python: Path, root: Path, bill: Path) -> None:
    command = [sys.executable, "-m", "cyclonedx_py", "environment", str(python)]
    command += ["--pyproject", str(root / "pyproject.toml"), "--of", "JSON", "-o", str(bill)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"no bill of materials: {done.stderr}")


def components(bill: Path) -> int:
    return len(json.loads(bill.read_text())["components"])


def refused_licences(bill: dict) -> list[str]:
    """Packages without a licence on the list, each with what it has."""
    wrong = []
    for component in bill["components"]:
        names = [name_of(licence) for licence in component.get("licenses", ())]
        if not any(is_free(name) for name in (*names, READ.get(component["name"], ""))):
            wrong.append(
                f"  {component['name']} {component['version']}: {', '.join(names) or 'none named'}"
            )
    return wrong


def name_of(licence: dict) -> str:
    inner = licence.get("license", {})
    return licence.get("expression") or inner.get("id") or inner.get("name") or ""


def is_free(name: str) -> bool:
    """Whether one side of every OR, and both of every AND, begins as one of the list."""
    plain = (
        name.replace("(", " ").replace(")", " ").replace("License :: OSI Approved ::", "").strip()
    )
    return any(
        all(part.strip().startswith(FREE) or part.strip() in LINKED for part in side.split(" AND "))
        for side in plain.split(" OR ")
    )


def audit(python: Path) -> None:
    """Ask for known vulnerabilities of exactly these versions."""
    sites = json.loads(
        subprocess.check_output(
            [python, "-c", "import json, site; print(json.dumps(site.getsitepackages()))"]
        )
    )
    command = [sys.executable, "-m", "pip_audit", "--progress-spinner", "off", "-f", "json"]
    for site in sites:
        command += ["--path", site]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        why = (done.stderr.splitlines() or ["no answer"])[-1]
        print(f"[package] not asked for vulnerabilities: {why}")
        return
    wrong = [
        f"  {package['name']} {package['version']}: {one['id']}, mended in {one['fix_versions']}"
        for package in found
        for one in package.get("vulns", ())
        if package["name"] != "pip" and one["id"] not in ACCEPTED_VULNERABILITIES
    ]
    if wrong:
        sys.exit("packages with known vulnerabilities:\n" + "\n".join(wrong))
    print(f"[package] no known vulnerability in {len(found)} packages")
