"""Check in an expanded template what cfn-lint and checkov do not see.

    check_template.py EXPANDED.json

Event source mappings: a starting position that exists, filter patterns that are what EventBridge patterns look like, partial batch responses, limits, a
failure destination, a consumer of their own, and a role that lets Lambda use all of that. Roles: `parliament` (actions and resources that exist and
belong together), no wildcard action, and no wildcard resource but where AWS knows no other.
"""

import json
import re
import sys

import parliament

STARTING_POSITIONS = {"TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"}
# AWS defines no resource for these actions.
ACTIONS_WITHOUT_RESOURCE = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
# What `prefix`, `numeric` and the rest may be called in a filter pattern.
FILTER_OPERATORS = {"prefix", "suffix", "equals-ignore-case", "anything-but", "numeric", "exists", "wildcard", "cidr"}
REQUIRED_MAPPING_PROPERTIES = {"BatchSize", "BisectBatchOnFunctionError", "MaximumRetryAttempts", "MaximumRecordAgeInSeconds", "DestinationConfig"}

ARNS = {
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:us-east-1:123456789012:table/{0}",
    "AWS::KMS::Key": "arn:aws:kms:us-east-1:123456789012:key/00000000-0000-0000-0000-000000000000",
    "AWS::Kinesis::Stream": "arn:aws:kinesis:us-east-1:123456789012:stream/{0}",
    "AWS::Kinesis::StreamConsumer": "arn:aws:kinesis:us-east-1:123456789012:stream/s/consumer/{0}:1700000000",
    "AWS::Logs::LogGroup": "arn:aws:logs:us-east-1:123456789012:log-group:{0}:*",
    "AWS::S3::Bucket": "arn:aws:s3:::{0}",
    "AWS::SQS::Queue": "arn:aws:sqs:us-east-1:123456789012:{0}",
}


class Checker:
    def __init__(self, template):
        self.resources = template["Resources"]
        self.parameters = template.get("Parameters", {})
        self.problems = []

    def problem(self, place, text):
        self.problems.append(f"{place}: {text}")

    def of_type(self, resource_type):
        return [(name, resource) for name, resource in self.resources.items() if resource["Type"] == resource_type]

    def run(self):
        for name, mapping in self.of_type("AWS::Lambda::EventSourceMapping"):
            self.check_mapping(name, mapping["Properties"])
        for name, role in self.of_type("AWS::IAM::Role"):
            self.check_role(name, role["Properties"])
        # What a role is granted beside its own statements, where that hangs on a condition.
        for name, policy in self.of_type("AWS::IAM::RolePolicy"):
            self.check_policy(name, policy["Properties"])
        if not self.of_type("AWS::Lambda::EventSourceMapping") or not self.of_type("AWS::IAM::Role"):
            self.problem("template", "it has no event source mapping or no role, so this check looked at the wrong file")
        return self.problems

    # ---- event source mappings

    def check_mapping(self, name, properties):
        position = properties.get("StartingPosition")
        if position not in STARTING_POSITIONS:
            self.problem(name, f"StartingPosition {position!r} is none of {', '.join(sorted(STARTING_POSITIONS))}")
        if (position == "AT_TIMESTAMP") != ("StartingPositionTimestamp" in properties):
            self.problem(name, "AT_TIMESTAMP and StartingPositionTimestamp go together")
        if properties.get("FunctionResponseTypes") != ["ReportBatchItemFailures"]:
            self.problem(name, "without ReportBatchItemFailures Lambda reads a partial failure as success and loses records (P1)")
        for missing in sorted(REQUIRED_MAPPING_PROPERTIES - properties.keys()):
            self.problem(name, f"{missing} is not set, so its default decides, which for retries and age is: for ever")
        for index, entry in enumerate(properties.get("FilterCriteria", {}).get("Filters", [])):
            self.check_filter(f"{name} filter {index}", entry.get("Pattern"))

        source = logical_id(properties.get("EventSourceArn"))
        if self.resources.get(source, {}).get("Type") != "AWS::Kinesis::StreamConsumer":
            self.problem(name, "it does not read through an AWS::Kinesis::StreamConsumer, so it shares 2 MB/s a shard with all other readers")
            return
        readers = [
            other for other, mapping in self.of_type("AWS::Lambda::EventSourceMapping") if logical_id(mapping["Properties"].get("EventSourceArn")) == source
        ]
        if len(readers) > 1:
            self.problem(name, f"{', '.join(readers)} share the consumer {source}; a consumer serves one reader")
        self.check_mapping_role(name, properties, source)

    def check_mapping_role(self, name, properties, consumer):
        """What Lambda does with the function's role before the function runs, and after it failed."""
        function = self.resources[logical_id(properties["FunctionName"])]["Properties"]
        role = self.resources.get(logical_id(function.get("Role")))
        if role is None:
            self.problem(name, "its function has no role in this template")
            return
        stream = logical_id(self.resources[consumer]["Properties"]["StreamARN"])
        destination = logical_id(properties.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination"))
        needed = [("kinesis:SubscribeToShard", consumer), ("kinesis:ListShards", stream), ("kinesis:DescribeStreamSummary", stream)]
        destination_type = self.resources.get(destination, {}).get("Type")
        if destination_type == "AWS::S3::Bucket":
            needed += [("s3:PutObject", destination), ("s3:ListBucket", destination)]
        elif destination_type == "AWS::SQS::Queue":
            needed += [("sqs:SendMessage", destination)]
        else:
            self.problem(name, "its failure destination is neither a bucket nor a queue of this template")
        granted = {
            (action, logical_id(resource))
            for policy in role["Properties"].get("Policies", [])
            for statement in policy["PolicyDocument"]["Statement"]
            for action in as_list(statement["Action"])
            for resource in as_list(statement["Resource"])
        }
        for action, resource in needed:
            if (action, resource) not in granted:
                self.problem(name, f"the role of its function does not grant {action} on {resource}")

    def check_filter(self, place, pattern):
        try:
            parsed = json.loads(pattern)
        except (TypeError, ValueError) as error:
            self.problem(place, f"the pattern is not JSON: {error}")
            return
        self.check_pattern(place, parsed)

    def check_pattern(self, place, node):
        if isinstance(node, list):
            for item in node:
                unknown = set(item) - FILTER_OPERATORS if isinstance(item, dict) else set()
                if unknown:
                    self.problem(place, f"unknown operator {', '.join(sorted(unknown))}")
            if not node:
                self.problem(place, "an empty list matches nothing")
        elif isinstance(node, dict):
            for key, value in node.items():
                if key == "$or":
                    for option in value:
                        self.check_pattern(place, option)
                else:
                    self.check_pattern(f"{place} {key}", value)
        else:
            self.problem(place, f"{node!r} must be in a list: what a field may equal is always a list")

    # ---- roles

    def check_role(self, name, properties):
        if properties.get("ManagedPolicyArns"):
            self.problem(name, "managed policies grant more than is needed; write the statements")
        for policy in properties.get("Policies", []):
            self.check_policy(f"{name}/{policy['PolicyName']}", policy)

    def check_policy(self, place, policy):
        document = policy["PolicyDocument"]
        for statement in document["Statement"]:
            self.check_wildcards(place, statement)
        text = json.dumps(self.concrete(document))
        for finding in parliament.analyze_policy_string(text, include_community_auditors=True).findings:
            self.problem(place, f"parliament: {finding.issue}: {finding.title} {finding.detail} {finding.location}")

    def check_wildcards(self, place, statement):
        sid = statement.get("Sid", "a statement")
        actions = as_list(statement.get("Action", []))
        for action in actions:
            if "*" in action:
                self.problem(place, f"{sid}: wildcard action {action}; name the actions")
        if "*" in as_list(statement.get("Resource", [])) and not set(actions) <= ACTIONS_WITHOUT_RESOURCE:
            self.problem(place, f"{sid}: wildcard resource; name the resources")
        if "NotAction" in statement or "NotResource" in statement:
            self.problem(place, f"{sid}: NotAction and NotResource grant what nobody has thought of")

    def concrete(self, node):
        """The document with every intrinsic replaced by what it could be, because parliament reads plain JSON."""
        if isinstance(node, list):
            return [self.concrete(item) for item in node]
        if not isinstance(node, dict):
            return node
        if set(node) == {"Ref"}:
            return self.value_of(node["Ref"])
        if set(node) == {"Fn::GetAtt"}:
            return self.arn(as_list(node["Fn::GetAtt"])[0].split(".")[0])
        if set(node) == {"Fn::Sub"}:
            text = node["Fn::Sub"]
            for name in self.resources:
                placeholder = "${" + name + ".Arn}"
                if placeholder in text:
                    text = text.replace(placeholder, self.arn(name))
            return re.sub(r"\$\{([A-Za-z0-9:]+)\}", lambda match: self.value_of(match.group(1)), text)
        return {key: self.concrete(value) for key, value in node.items()}

    def value_of(self, name):
        """What a Ref of a pseudo parameter, a parameter or a resource could be."""
        pseudo = {"AWS::AccountId": "123456789012", "AWS::Region": "us-east-1", "AWS::Partition": "aws"}
        return pseudo.get(name) or self.parameters.get(name, {}).get("Default") or name.lower()

    def arn(self, name):
        return ARNS[self.resources[name]["Type"]].format(name.lower())


def logical_id(node):
    """The resource that a Ref, GetAtt or Sub of its ARN is about."""
    if isinstance(node, dict):
        if "Ref" in node:
            return node["Ref"]
        if "Fn::GetAtt" in node:
            return as_list(node["Fn::GetAtt"])[0].split(".")[0]
        if "Fn::Sub" in node and node["Fn::Sub"].startswith("${"):
            return node["Fn::Sub"][2:].split("}")[0].split(".")[0]
    return node if isinstance(node, str) else None


def as_list(node):
    return node if isinstance(node, list) else [node]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        problems = Checker(json.load(file)).run()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
