"""Expand a SAM template into plain CloudFormation, as AWS does at deployment.

    expand_template.py TEMPLATE.yaml OUT.json

The linters see almost nothing inside a SAM resource (a misspelt property of an event passes them all), so they run on what comes out of this.
"""

import json
import os
import sys

os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")

from samcli.yamlhelper import yaml_parse
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

# Stands for the archives that `sam package` would upload.
PLACEHOLDER_ARCHIVE = {"Bucket": "placeholder-bucket", "Key": "placeholder.zip"}
LOCAL_PATHS = {"AWS::Serverless::Function": "CodeUri", "AWS::Serverless::LayerVersion": "ContentUri"}


def resolve_parameter_defaults(template):
    return {name: parameter["Default"] for name, parameter in template.get("Parameters", {}).items() if "Default" in parameter}


def expand(template):
    for resource in template["Resources"].values():
        path_property = LOCAL_PATHS.get(resource["Type"])
        if path_property:
            resource["Properties"][path_property] = dict(PLACEHOLDER_ARCHIVE)
    # Conditions stay conditions; only SAM's own needs are resolved. No managed policy is used: roles are explicit.
    return Translator({}, Parser()).translate(sam_template=template, parameter_values=resolve_parameter_defaults(template))


def main():
    source, destination = sys.argv[1:]
    with open(source, encoding="utf-8") as file:
        template = yaml_parse(file.read())
    try:
        expanded = expand(template)
    except InvalidDocumentException as error:
        for cause in error.causes:
            print(f"{source}: {cause.message}", file=sys.stderr)
        sys.exit(1)
    with open(destination, "w", encoding="utf-8") as file:
        json.dump(expanded, file, indent=1, default=str)
        file.write("\n")


if __name__ == "__main__":
    main()
