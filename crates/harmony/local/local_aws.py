#!/usr/bin/env python3
"""Starts a local AWS (MiniStack, patched) and deploys a SAM template to it.

When the stack stands, prints one line of JSON: {endpoint, region, api_url, outputs, pid}. Runs until stdin ends
or SIGINT, SIGTERM or SIGHUP comes, and takes every function's process with it. Nothing is kept.
"""

import argparse
import asyncio
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import io
import json
import math
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import zipfile
from pathlib import Path

MINISTACK = "1.5.33"  # The patches replace private functions, which any other version may have changed.
REGION = "eu-central-1"
# Of the caller's environment only this gets through: a profile, a proxy or a service's own endpoint would lead
# to the real AWS, and MiniStack has switches of its own.
KEPT_ENVIRONMENT = ("PATH", "HOME", "LANG", "RUST_BACKTRACE", "LOG_LEVEL", "SFN_WAIT_SCALE", "LAMBDA_WARM_TTL_SECONDS")


class Failure(Exception):
    """Something the user can put right; the message says how."""


# ---------------------------------------------------------------- patches: what AWS does and MiniStack does not
def around(wrapper):
    """Makes a patch of a function that gets the original as its first argument."""
    return lambda original: functools.partial(wrapper, original)


def answer_at_once(handler):
    """The Runtime API answers a function at once; Nagle's algorithm holds every answer back for 40 ms."""
    handler.disable_nagle_algorithm = True
    return handler


@around
def log_settings(original, config, *args):
    """A function learns its LoggingConfig from two environment variables, which the Rust runtime reads."""
    logs = config.get("LoggingConfig") or {}
    level = {"AWS_LAMBDA_LOG_LEVEL": logs["ApplicationLogLevel"]} if "ApplicationLogLevel" in logs else {}
    return {**original(config, *args), "AWS_LAMBDA_LOG_FORMAT": logs.get("LogFormat", "Text"), **level}


@around
def binary_bodies(original, media_type, binary_types):
    """BinaryMediaTypes "*~1*" means */*, and a body without a Content-Type counts as JSON."""
    return original(media_type or "application/json", [kind.replace("~1", "/") for kind in binary_types or []])


def start_at_once(clock):
    """An execution starts at once; MiniStack sleeps for 0.15 s first, and for that long nowhere else."""
    replaced = {"sleep": lambda seconds: seconds == 0.15 or clock.sleep(seconds)}
    return types.SimpleNamespace(**{**vars(clock), **replaced})


@around
def retry_delay(original, retriers, error, counts):
    """Retry honours MaxDelaySeconds and JitterStrategy; MiniStack computes IntervalSeconds * BackoffRate ** count."""
    retrier, index = original(retriers, error, counts)
    if retrier is not None:
        delay = retrier.get("IntervalSeconds", 1) * retrier.get("BackoffRate", 2) ** counts.get(index, 0)
        delay = min(delay, retrier.get("MaxDelaySeconds", math.inf))
        delay *= random.random() if retrier.get("JitterStrategy") == "FULL" else 1
        retrier = {**retrier, "IntervalSeconds": delay, "BackoffRate": 1}
    return retrier, index


@around
def parallel(original, state, state_input, execution, context):
    """A JSONata Parallel state evaluates Arguments, Assign and Output; MiniStack skips all three."""
    from ministack.services import stepfunctions as sfn

    if sfn._state_query_language(state, context) != "JSONata":
        return original(state, state_input, execution, context)
    arguments = sfn._apply_jsonata_arguments(state, state_input, context)
    result, following = original(state, arguments, execution, context)
    output = sfn._apply_jsonata_output(state, state_input, context, result=result, default=result)
    sfn._apply_state_assign(state, state_input, context, result=result)
    return output, following


PATCHES = (
    ("socketserver", "StreamRequestHandler", answer_at_once),
    ("ministack.services.lambda_svc", "_provided_worker_env", log_settings),
    ("ministack.services.apigateway_v1", "_media_type_matches", binary_bodies),
    ("ministack.services.stepfunctions", "time", start_at_once),
    ("ministack.services.stepfunctions", "_find_matching_retrier", retry_delay),
    ("ministack.services.stepfunctions", "_run_parallel_branches", parallel),
)


# ---------------------------------------------------------------- functions are child processes: none may outlive this
class Child(subprocess.Popen):
    spawning = threading.RLock()
    alive = []

    def __init__(self, *args, **kwargs):
        with Child.spawning:  # stop() takes it for good, so that nothing starts behind its back.
            super().__init__(*args, **kwargs)
            Child.alive = [child for child in Child.alive if child.poll() is None] + [self]


def stop(code, scratch):
    Child.spawning.acquire()
    for child in Child.alive:
        child.kill()
    for child in Child.alive:
        child.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(code)  # sys.exit would wait for MiniStack's threads, some of which sleep for minutes.


# ---------------------------------------------------------------- what `sam package` and `sam deploy` do
def zipped(folder):
    """The same bytes whenever the files are the same. Not compressed, as it goes nowhere."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            entry.external_attr = path.stat().st_mode << 16  # `bootstrap` stays executable
            archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


def package(template, root, put):
    uris = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::StateMachine": "DefinitionUri"}
    for definition in template.get("Resources", {}).values():
        properties, name = definition.get("Properties", {}), uris.get(definition.get("Type"))
        uri = properties.get(name)
        if not isinstance(uri, str) or uri.startswith("s3://"):
            continue
        file = root / uri / "bootstrap" if name == "CodeUri" else root / uri
        if not file.is_file():
            raise Failure(f"{file} is missing" + (": run `make build`" if name == "CodeUri" else ""))
        # A new object, since through a YAML anchor several resources may share one.
        body = zipped(root / uri) if name == "CodeUri" else file.read_bytes()
        definition["Properties"] = {**properties, name: put(body)}


def deploy(endpoint, path, stack, parameters):
    import boto3
    from ministack.services.cloudformation.engine import _parse_template

    s3, cloudformation, dynamodb = (boto3.client(name) for name in ("s3", "cloudformation", "dynamodb"))
    bucket = "artifacts"
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})

    def put(body):
        key = hashlib.sha256(body).hexdigest()
        s3.put_object(Bucket=bucket, Key=key, Body=body)
        return {"Bucket": bucket, "Key": key}

    template = _parse_template(path.read_text())
    package(template, path.parent, put)
    if unknown := parameters.keys() - template.get("Parameters", {}).keys():  # MiniStack would take them.
        raise Failure(f"{path} has no parameter {', '.join(sorted(unknown))}")
    cloudformation.create_stack(
        StackName=stack,
        TemplateURL=f"{endpoint}/{bucket}/{put(json.dumps(template).encode())['Key']}",
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    deadline = time.monotonic() + 60
    while (state := cloudformation.describe_stacks(StackName=stack)["Stacks"][0])["StackStatus"] != "CREATE_COMPLETE":
        if state["StackStatus"] != "CREATE_IN_PROGRESS":
            events = cloudformation.describe_stack_events(StackName=stack)["StackEvents"]  # the last one first
            first = ([event for event in events if event["ResourceStatus"] == "CREATE_FAILED"] or events)[-1]
            raise Failure(f"{first['LogicalResourceId']} failed: {first.get('ResourceStatusReason')}")
        if time.monotonic() > deadline:
            raise Failure(f"stack {stack} is not complete after a minute")
        time.sleep(0.05)
    for name, definition in template["Resources"].items():
        # MiniStack's CloudFormation drops TimeToLiveSpecification.
        if time_to_live := definition.get("Properties", {}).get("TimeToLiveSpecification"):
            table = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=name)
            table = table["StackResourceDetail"]["PhysicalResourceId"]
            dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=time_to_live)
    return {output["OutputKey"]: output["OutputValue"] for output in state.get("Outputs", [])}


# ---------------------------------------------------------------- start
def key_and_value(text):
    key, value = text.split("=", 1)
    return key, value


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument("--log", default=os.devnull, metavar="FILE", help="for MiniStack's log; default: nowhere")
    parser.add_argument("--parameter", type=key_and_value, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--no-stdin-watch", action="store_true", help="do not end when stdin does")
    return parser.parse_args()


def set_environment(endpoint, port, scratch):
    kept = {name: os.environ[name] for name in KEPT_ENVIRONMENT if name in os.environ}
    os.environ.clear()  # The functions inherit all that follows.
    os.environ.update(kept, AWS_ENDPOINT_URL=endpoint, AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test")
    os.environ.update(AWS_CONFIG_FILE=os.devnull, AWS_SHARED_CREDENTIALS_FILE=os.devnull)
    os.environ.update(AWS_EC2_METADATA_DISABLED="true", AWS_REGION=REGION, AWS_DEFAULT_REGION=REGION)
    os.environ.update(MINISTACK_REGION=REGION, BIND_HOST="127.0.0.1", GATEWAY_PORT=str(port))
    os.environ.update(IOT_MTLS_ENABLED="0", SFTP_ENABLED="0")
    os.environ["TMPDIR"] = tempfile.tempdir = scratch


def serve(listener, then):
    """MiniStack's own main() without its pid file and signal handlers."""
    with contextlib.suppress(OSError, ValueError):  # Every function instance takes four descriptors.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    subprocess.Popen = Child
    import hypercorn.asyncio
    import hypercorn.config
    from ministack import app

    for module, name, patch in PATCHES:
        module = importlib.import_module(module)
        setattr(module, name, patch(getattr(module, name)))
    # Not earlier: MiniStack's modules import each other in circles, which only one thread at a time may enter.
    threading.Thread(target=then, daemon=True).start()
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.keep_alive_timeout = 75
    asyncio.run(hypercorn.asyncio.serve(app.app, config, shutdown_trigger=asyncio.Event().wait))


def main():
    args = arguments()
    try:
        found = importlib.metadata.version("aws-sam-translator") and importlib.metadata.version("ministack")
    except importlib.metadata.PackageNotFoundError as error:
        found = f"no {error.name}"
    if found != MINISTACK:
        needed = Path(__file__).with_name("requirements.txt")
        print(f"MiniStack {MINISTACK} is needed, found {found}: pip install -r {needed}", file=sys.stderr)
        sys.exit(2)
    scratch = tempfile.mkdtemp(prefix="local-aws-")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop(0, scratch))
    said, complaints = (os.fdopen(os.dup(descriptor), "w") for descriptor in (1, 2))

    def fail(error):
        if not isinstance(error, (Failure, OSError)):
            traceback.print_exc()  # goes to the log
        print(f"{Path(__file__).name}: {' '.join(str(error).split())}", file=complaints, flush=True)
        stop(1, scratch)

    def watch_stdin():
        while os.read(0, 4096):
            pass
        stop(0, scratch)

    def bring_up():
        try:
            outputs = deploy(endpoint, args.template, args.stack, dict(args.parameter))
            api_url = f"{endpoint}/_aws/execute-api/{outputs.get('ApiId')}/live"
            ready = {"endpoint": endpoint, "region": REGION, "api_url": api_url, "outputs": outputs, "pid": os.getpid()}
            print(json.dumps(ready), file=said, flush=True)
        except Exception as error:
            fail(error)

    try:
        log = os.open(args.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", args.port))
            listener.listen()  # Now, so that nobody takes the port meanwhile and early requests wait.
        except (OSError, OverflowError) as error:
            way_out = "stop what listens there, or leave --port out to take a free one"
            raise Failure(f"port {args.port} cannot be used: {error}: {way_out}") from error
        port = listener.getsockname()[1]
        endpoint = f"http://127.0.0.1:{port}"
        set_environment(endpoint, port, scratch)
        if not args.no_stdin_watch:
            threading.Thread(target=watch_stdin, daemon=True).start()
        serve(listener, bring_up)
    except Exception as error:
        fail(error)


if __name__ == "__main__":
    main()
