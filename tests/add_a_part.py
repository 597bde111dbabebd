"""Adds the part of docs/add-a-part.md to a copy of this checkout, from the page's text alone, and books it there.

Every block of the page is applied as the sentence before it says. The copy is built; but of its programs only the API and
the new function are deployed: all others are those that were built before, in this checkout. Bookings are under way when
the API is replaced. Everything is booked in both variants, on a local AWS, and audited.

    python3 tests/add_a_part.py        after `make build`
"""

import base64
import io
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "add-a-part.md"
COPY = ROOT / "target" / "add-a-part"
HARMONY = COPY / "target" / "release" / "harmony"
VARIANTS = ["orchestrated", "choreographed"]
# As the page says: none but these is deployed anew.
NEW = ["insurance", "api"]
DEADLINE = 60
# The exit code of `harmony book` for a booking that failed: see docs/command-line.md.
FAILED = 3

RULE = re.compile(
    r"(?:Create `(?P<created>[^`]+)`|In `(?P<file>[^`]+)`, (?P<how>after the|after each|before the|instead of the) line "
    r"`(?P<line>[^`]*)`):\n\n```\w*\n(?P<block>.*?)```\n",
    re.DOTALL,
)


def apply(page, folder):
    """Applies every block of the page, and returns how many lines each file got and lost."""
    changed = {}
    for rule in RULE.finditer(page):
        block = rule["block"]
        if created := rule["created"]:
            path = folder / created
            assert not path.exists(), f"{created} is there already"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block)
            changed[created] = (block.count("\n"), 0)
            continue
        path, line = folder / rule["file"], rule["line"] + "\n"
        text = path.read_text()
        lines = text.splitlines(keepends=True)
        found = lines.count(line)
        assert found == 1 or (found > 1 and rule["how"] == "after each"), f"{rule['file']} has {found} lines {line!r}"
        ways = {"after the": line + block, "after each": line + block, "before the": block + line, "instead of the": block}
        path.write_text("".join(ways[rule["how"]] if here == line else here for here in lines))
        added, removed = changed.get(rule["file"], (0, 0))
        is_instead = rule["how"] == "instead of the"
        changed[rule["file"]] = (added + found * block.count("\n"), removed + found * is_instead)
    blocks = len(re.findall(r"^```(?:rust|json|toml|yaml)$", page, re.MULTILINE))
    assert blocks == len(RULE.findall(page)), "a block is not introduced by a sentence that says where it goes"
    return changed


def copy():
    shutil.rmtree(COPY, ignore_errors=True)
    tracked = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                             capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)
    # What is compiled already need not be compiled again: only this project's crates are new there.
    for folder in ["deps", "build", ".fingerprint"]:
        shutil.copytree(ROOT / "target" / "release" / folder, COPY / "target" / "release" / folder, symlinks=True)
    (COPY / ".venv").symlink_to(ROOT / ".venv")


def harmony(*arguments, expected=0):
    done = subprocess.run([HARMONY, *arguments], cwd=COPY, capture_output=True, text=True)
    assert done.returncode == expected, f"harmony {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def book(variant, parts, *options, expected=0):
    """Books a trip of these parts, and returns it as it ended."""
    named = [argument for part in parts for argument in ("--part", part)]
    return json.loads(harmony("book", "--json", "--variant", variant, *named, *options, expected=expected))["booking"]


def steps(booking):
    return {entry["step"]: entry for entry in booking["timeline"]}


def request(endpoint, method, path, body):
    data = json.dumps(body).encode()
    headers = {"content-type": "application/json", "idempotency-key": f"{time.time_ns()}"}
    with urllib.request.urlopen(urllib.request.Request(endpoint + path, data, headers, method=method), timeout=30) as answer:
        return json.load(answer)


def replace(endpoint, function, program):
    """Gives a function another program, as a deployment does."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo("bootstrap")
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, program.read_bytes())
    code = {"ZipFile": base64.b64encode(packed.getvalue()).decode()}
    request(endpoint, "PUT", f"/2015-03-31/functions/{function}/code", code)


def await_file(path):
    deadline = time.monotonic() + DEADLINE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)
    return json.loads(path.read_text())


def check():
    """Books on the stack that runs, whose API is still the old one."""
    stack = await_file(COPY / ".harmony" / "stack.json")
    endpoint, api = stack["endpoint"], stack["api_url"]

    # Under way while the API is replaced: the provider answers these too late, so that each takes two seconds and more.
    under_way = [send(api, variant, payment={"token": "tok_timeout"}) for variant in VARIANTS * 4]
    replace(endpoint, "harmony-api", COPY / "target" / "lambda" / "api" / "bootstrap")
    for booking_id in under_way:
        booking = ended(booking_id)
        assert booking["status"] == "confirmed" and "insurance" not in booking, booking
    print(f"{len(under_way)} bookings that were under way are confirmed")

    # As after a deployment. Had it replaced the stock of which these have taken, the audit would find too much of it.
    loaded = harmony("load", "--part", "insurance", "--days", "60")
    products = len(json.loads((COPY / "crates/travel/src/insurance.json").read_text())["products"])
    assert loaded.startswith(f"{products * 60} lines"), loaded

    print(harmony("demo").splitlines()[-2])

    for variant in VARIANTS:
        for others in [[], ["flight"], ["flight", "hotel", "car"]]:
            parts = [*others, "insurance"]
            booking = book(variant, parts)
            assert booking["status"] == "confirmed" and all(part in booking for part in parts), booking
            prices = [steps(booking)[f"{part}.reserve"]["detail"]["price"]["amount"] for part in parts]
            assert booking["total"]["amount"] == sum(prices), booking
        for tariff, code in [("retired", "sold_out"), ("unheard-of", "unknown_insurance")]:
            insurance = {"tariff": tariff, "start": EXAMPLE["flight"]["date"], "travellers": 2}
            booking = ended(send(api, variant, insurance=insurance))
            assert booking["reason"]["step"] == "insurance.reserve" and booking["reason"]["code"] == code, booking
            assert all(f"{part}.cancel" in steps(booking) for part in ["flight", "hotel", "car", "insurance"]), booking
        for options, code in [(["--hotel", "nyc-annex"], "sold_out"), (["--token", "tok_declined"], "card_declined")]:
            booking = book(variant, ["flight", "hotel", "insurance"], *options, expected=FAILED)
            cancel = steps(booking)["insurance.cancel"]
            assert booking["reason"]["code"] == code and booking["status"] == "failed", booking
            # Choreographed, a cancel may overtake the reserve, which is then refused.
            assert cancel["detail"]["released"] == (steps(booking)["insurance.reserve"]["outcome"] == "reserved"), booking
        print(f"{variant}: confirmed with insurance, failed because of it, and given back, by programs built before")
    print(harmony("audit", "--all-ended").strip().splitlines()[-1])


def send(api, variant, **changed):
    """Asks for a trip, and returns the id of its booking."""
    return request(api, "POST", "/bookings", {**EXAMPLE, "variant": variant, **changed})["booking_id"]


def ended(booking_id):
    """The booking, once it has ended."""
    deadline = time.monotonic() + DEADLINE
    while True:
        booking = json.loads(harmony("show", "--json", booking_id))
        if booking["status"] not in ("pending", "compensating"):
            return booking
        assert time.monotonic() < deadline, booking
        time.sleep(0.1)


def date(days):
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() + days * 86400))


EXAMPLE = {
    "traveller": {"name": "Ada Lovelace", "email": "ada@example.com"},
    "flight": {"flight_no": "LH400", "date": date(30), "seats": 2},
    "hotel": {"hotel_id": "nyc-plaza", "check_in": date(30), "check_out": date(33), "rooms": 1},
    "car": {"station_id": "jfk", "category": "compact", "pick_up": date(30), "drop_off": date(33)},
    "payment": {"token": "tok_visa"},
}


def main():
    os.environ.pop("HARMONY_API_URL", None)
    copy()
    changed = apply(PAGE.read_text(), COPY)
    subprocess.run(["cargo", "build", "--release"], cwd=COPY, check=True)
    for function in (ROOT / "functions").iterdir():
        before = ROOT / "target" / "lambda" / function.name / "bootstrap"
        (COPY / "target" / "lambda" / function.name).mkdir(parents=True, exist_ok=True)
        shutil.copy2(before, COPY / "target" / "lambda" / function.name / "bootstrap")
    for function in NEW:
        (COPY / "target" / "lambda" / function).mkdir(parents=True, exist_ok=True)
    built = COPY / "target" / "release"
    shutil.copy2(built / "insurance", COPY / "target" / "lambda" / "insurance" / "bootstrap")
    local = subprocess.Popen([HARMONY, "local", "--days", "60"], cwd=COPY, stdout=subprocess.DEVNULL)
    try:
        await_file(COPY / ".harmony" / "stack.json")
        shutil.copy2(built / "api", COPY / "target" / "lambda" / "api" / "bootstrap")
        check()
    finally:
        local.send_signal(signal.SIGTERM)
        local.wait(DEADLINE)
    for name, (added, removed) in sorted(changed.items()):
        print(f"{name}: +{added} -{removed}")
    own = ("crates/travel/src/insurance.", "functions/insurance/")
    others = {name: lines for name, lines in changed.items() if not name.startswith(own)}
    total = sum(added + removed for added, removed in others.values())
    print(f"a part costs {len(others)} files and {total} lines outside of its own; no program but {' and '.join(NEW)} is new")
    shutil.rmtree(COPY)


if __name__ == "__main__":
    sys.exit(main())
