#!/usr/bin/env python3
"""Checks before `make deploy` builds anything whether the deployment can succeed: whether the stack's name is short
enough for the names that the template derives from it, and whether API Gateway has the role that access logs need.
"""

import argparse
import re
import sys
from pathlib import Path

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[3]
STACK = "${AWS::StackName}"
# The maximum length of a resource's name. A Schedule becomes a rule of EventBridge.
LIMITS = {
    # https://docs.aws.amazon.com/lambda/latest/api/API_CreateFunction.html
    ("AWS::Serverless::Function", "FunctionName"): 64,
    # https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutRule.html
    ("Schedule", "Name"): 64,
    # https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_CreateLogGroup.html
    ("AWS::Logs::LogGroup", "LogGroupName"): 512,
}


class Template(yaml.SafeLoader):
    """CloudFormation's YAML, with the short forms of functions expanded: `!Sub text` is {"Sub": "text"}."""


def function(loader, name, node):
    construct = {yaml.ScalarNode: loader.construct_scalar, yaml.SequenceNode: loader.construct_sequence}
    return {name: construct.get(type(node), loader.construct_mapping)(node)}


Template.add_multi_constructor("!", function)


def derived_names(node, kind=None):
    """(type, property, text) of each name that is derived from the stack's; the text is that of `Sub`."""
    if isinstance(node, list):
        for each in node:
            yield from derived_names(each, kind)
    elif isinstance(node, dict):
        kind = node["Type"] if isinstance(node.get("Type"), str) else kind
        for key, value in node.items():
            text = value.get("Sub") if isinstance(value, dict) else None
            if isinstance(text, str) and key.endswith("Name") and STACK in text and text != STACK:
                yield kind, key, text
            else:
                yield from derived_names(value, kind)


def room(template):
    """The maximum length of a stack's name, and the derived name that limits it."""
    names = derived_names(template["Resources"])
    return min((LIMITS[kind, key] - len(text.replace(STACK, "")), text) for kind, key, text in names)


def settings(config, environment):
    """What samconfig.toml says for `sam deploy`."""
    section = config.get(environment, {})
    return {**section.get("global", {}).get("parameters", {}), **section.get("deploy", {}).get("parameters", {})}


def parameters(overrides):
    """`--parameter-overrides` as SAM takes it: texts of KEY=VALUE or ParameterKey=KEY,ParameterValue=VALUE."""
    text = overrides if isinstance(overrides, str) else " ".join(overrides)
    text = re.sub(r"ParameterKey=([^\s,]+),ParameterValue=", r"\1=", text)
    return {key: value.strip("\"'") for key, value in re.findall(r"(\w+)=(\"[^\"]*\"|'[^']*'|\S*)", text)}


def log_role(region, profile):
    """The role in API Gateway's account settings of this region; none if there is none."""
    session = boto3.Session(region_name=region, profile_name=profile)
    return session.client("apigateway").get_account().get("cloudwatchRoleArn")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--config-env", default="default")
    parser.add_argument("--guided", action="store_true", help="`sam deploy` asks for the rest")
    parser.add_argument("--stack-name")
    parser.add_argument("--parameter-overrides", nargs="*")
    parser.add_argument("--region")
    parser.add_argument("--profile")
    return parser.parse_known_args()[0]  # `sam deploy` checks its other options itself


def main():
    args = arguments()
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    given = {key: value for key, value in vars(args).items() if value is not None}
    given = {**settings(config, args.config_env), **given}
    template = yaml.load((ROOT / "template.yaml").read_text(), Template)

    most, longest = room(template)
    stack = given.get("stack_name", "")
    if len(stack) > most:
        name = longest.replace(STACK, stack)
        sys.exit(f"the stack's name {stack} has {len(stack)} characters, of {most} at most: {name} is too long for AWS")
    if args.guided:
        print(f"Stack Name: {most} characters at most")
        return  # the answers are not known yet

    defaults = {name: parameter.get("Default") for name, parameter in template["Parameters"].items()}
    chosen = {**defaults, **parameters(given.get("parameter_overrides", []))}
    if chosen["AccessLogs"] != "ON":
        return
    try:
        role = log_role(given.get("region"), given.get("profile"))
    except (BotoCoreError, ClientError) as error:
        sys.exit(
            f"cannot find out whether API Gateway has a role for access logs: {error}\n"
            "This needs a region, and credentials with apigateway:GET on /account. To deploy without this check: "
            f"sam build --config-env {args.config_env} && sam deploy --config-env {args.config_env}"
        )
    if not role:
        sys.exit(
            "AccessLogs=ON needs a role in API Gateway's settings of this account and region, and there is none: the "
            "deployment would fail.\nDeploy with AccessLogs=ON_AND_SET_UP_ACCOUNT (in samconfig.toml), which makes "
            "one, or set one up: see docs/deploy.md, *The first deployment of prod*"
        )


if __name__ == "__main__":
    main()
