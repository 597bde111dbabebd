"""The project's Makefile under other people's shells and configuration files. It builds a project of two small programs,
in a folder with a space in its name; in place of SAM and Zig it finds a script."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import zipfile
from pathlib import Path

MAKEFILE = Path(__file__).resolve().parents[3] / "Makefile"
HOST = next(line.split()[1] for line in subprocess.getoutput("rustc -vV").splitlines() if line.startswith("host: "))
# It says what was there when it was compiled: a flag, the C compiler's flags, and what Zig's Python is told.
PROGRAM = """fn main() {
    println!("new {} {:?}", cfg!(here), option_env!("CFLAGS").or(option_env!("PYTHONHOME")));
}"""
OLD = "#!/bin/sh\necho old\n"
# Notes how it was called. As `cargo zigbuild` it builds without Zig, whose target has glibc's version at its end.
STAND_IN = """#!/bin/sh
echo "$@" >>calls
case $1 in
  zigbuild) shift; exec cargo build $(echo "$@" | sed 's/\\.2\\.34//') ;;
esac
"""


class Project(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory(prefix="test-make-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name).resolve()
        self.root = self.folder / "a project"
        self.write("Makefile", MAKEFILE.read_text())
        self.write("Cargo.toml", '[workspace]\nresolver = "3"\nmembers = ["flight", "harmony"]\n')
        for name in ("flight", "harmony"):
            self.write(f"{name}/Cargo.toml", f'[package]\nname = "{name}"\nversion = "0.0.0"\nedition = "2024"\n')
            self.write(f"{name}/src/main.rs", PROGRAM)

    def write(self, path, text, mode=0o644):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # Cargo's programs are links to the ones that it keeps.
        path.write_text(text)
        path.chmod(mode)

    def configure(self, text):
        self.write(".cargo/config.toml", text)
        self.addCleanup((self.root / ".cargo/config.toml").unlink, missing_ok=True)

    def install_stand_ins(self):
        for stand_in in ("cargo-zigbuild", "python"):
            self.write(f".venv-dev/bin/{stand_in}", STAND_IN, 0o755)
        for packages in (".venv-dev/ready", "crates/harmony/local/requirements-dev.txt"):
            self.write(packages, "the same")

    def make(self, *args, **environment):
        command = ["make", "--silent", "FUNCTIONS=flight", *args]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("CARGO_", "MAKE"))}
        own.update({name: os.environ[name] for name in ("CARGO_HOME",) if name in os.environ})
        done = subprocess.run(
            command, cwd=self.root, env={**own, **environment}, capture_output=True, text=True, timeout=120
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def said_by(self, program):
        return subprocess.check_output([self.root / program], text=True).strip()


class Build(Project):
    def test_what_is_used_is_what_was_built(self):
        elsewhere = str(self.folder / "elsewhere")
        for environment, configuration in (
            ({"CARGO_TARGET_DIR": elsewhere}, ""),
            ({"CARGO_BUILD_TARGET_DIR": elsewhere}, ""),
            ({"CARGO_BUILD_TARGET": "aarch64-unknown-none"}, ""),
            ({}, f'build.target-dir = "{elsewhere}"'),
            ({}, f'build.target = "{HOST}"'),
        ):
            with self.subTest(environment=environment, configuration=configuration):
                for program in ("target/release/harmony", "target/lambda/flight/bootstrap"):
                    self.write(program, OLD, 0o755)
                self.configure(configuration)
                self.make("build", **environment)
                said = [self.said_by("target/release/harmony"), self.said_by("target/lambda/flight/bootstrap")]
                self.assertEqual(said, ["new false None"] * 2)

    def test_no_flag_for_this_machine_reaches_lambda(self):
        self.install_stand_ins()
        triple = HOST.upper().replace("-", "_")
        flags = "--cfg here"
        for environment, configuration in (
            ({"RUSTFLAGS": flags, "CFLAGS": "-march=native"}, ""),
            ({"PYTHONHOME": "nowhere"}, ""),
            ({"CARGO_ENCODED_RUSTFLAGS": flags.replace(" ", "\x1f")}, ""),
            ({"CARGO_BUILD_RUSTFLAGS": flags}, ""),
            ({f"CARGO_TARGET_{triple}_RUSTFLAGS": flags, f"CARGO_TARGET_{triple}_LINKER": "no-such-linker"}, ""),
            ({"CARGO_BUILD_TARGET_DIR": str(self.folder / "elsewhere")}, f'build.rustflags = "{flags}"'),
            ({}, f'target.{HOST}.rustflags = "{flags}"'),
        ):
            with self.subTest(environment=environment, configuration=configuration):
                self.configure(configuration)
                (self.root / "artifacts").mkdir(exist_ok=True)
                self.write(f"target/{HOST}/release/flight", OLD, 0o755)
                artifacts = f"ARTIFACTS_DIR={self.root}/artifacts"
                self.make("build-FlightFunction", f"TARGET={HOST}", artifacts, **environment)
                self.assertEqual(self.said_by("artifacts/bootstrap"), "new false None")
        self.make("build", RUSTFLAGS=flags)
        self.assertEqual(self.said_by("target/lambda/flight/bootstrap"), "new true None", "the flag does something")

    def test_a_function_is_a_folder_with_a_program(self):
        for file in ("flight/Cargo.toml", "insurance/Cargo.toml", "notes/README.md", "Cargo.toml"):
            self.write(f"functions/{file}", "")
        command = ["make", "--silent", "--eval", "FUNCTIONS-of: ; @echo $(FUNCTIONS)", "FUNCTIONS-of"]
        self.assertEqual(subprocess.check_output(command, cwd=self.root, text=True), "flight insurance\n")

    def test_only_the_command_line_chooses_what_is_deployed(self):
        def calls(*args, **environment):
            self.write("calls", "")
            self.make("deploy", *args, **environment)
            return [line for line in (self.root / "calls").read_text().splitlines() if "import pip" not in line]

        self.install_stand_ins()
        check, sam = "-I -B crates/harmony/local/check_deployment.py", "-I -m samcli"
        by_default = [f"{check} --guided", f"{sam} build --config-env default", f"{sam} deploy --guided"]
        self.assertEqual(calls(), by_default)
        self.assertEqual(calls(CONFIG="prod", ARGS="--no-such-option", PYTHON="no-such-python"), by_default)
        chosen = [f"{check} --config-env staging -x", f"{sam} build --config-env staging"]
        chosen.append(f"{sam} deploy --config-env staging -x")
        self.assertEqual(calls("CONFIG=staging", "ARGS=-x", CONFIG="prod"), chosen)


class Environments(Project):
    """Virtual environments of Python. The one package comes from a folder, which the environment names."""

    def setUp(self):
        super().setUp()
        with zipfile.ZipFile(self.folder / "probe-1-py3-none-any.whl", "w") as wheel:
            about = "probe-1.dist-info"
            wheel.writestr("probe.py", "")
            wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: probe\nVersion: 1\n")
            wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            files = ("probe.py", *(f"{about}/{file}" for file in ("METADATA", "WHEEL", "RECORD")))
            wheel.writestr(f"{about}/RECORD", "".join(f"{file},,\n" for file in files))
        self.write("crates/harmony/local/requirements.txt", "probe==1\n")
        self.write("pip.conf", f"[install]\nuser = true\ntarget = {self.root}/lost\n")

    def set_up(self, **environment):
        source = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}
        said = self.make(".venv/ready", f"PYTHON={os.path.realpath(sys.executable)}", **source, **environment)
        subprocess.check_call([self.root / ".venv/bin/python", "-I", "-c", "import probe"])
        return said

    def test_it_is_made_anew_when_its_python_is_gone_or_another_whatever_the_shell_says(self):
        lost = str(self.root / "lost")
        python = self.root / ".venv/bin/python"
        self.write(".venv/ready", "probe==1\n")
        python.parent.mkdir()
        python.symlink_to(lost)
        self.set_up(
            PYTHONHOME=lost, PYTHONPATH=lost, PYTHONSAFEPATH="1", PYTHONNOUSERSITE="", PIP_USER="1", PIP_TARGET=lost,
            PIP_PREFIX=lost, PIP_REQUIRE_HASHES="1", PIP_CONFIG_FILE=str(self.root / "pip.conf"),
        )
        self.assertEqual(self.set_up(), "", "nothing to do")
        (packages,) = (self.root / ".venv/lib").glob("python3.*")
        packages.rename(packages.with_name("python3.1"))
        self.set_up()
        self.write("crates/harmony/local/requirements.txt", "probe\n")
        self.assertNotEqual(self.set_up(), "", "other packages")


if __name__ == "__main__":
    unittest.main()
