"""Prove that each template check can fail: plant one error at a time in a copy of template.yaml, and see who finds it.

A gate that passes everything looks just like a clean template. `who` is the step of `.ci/check-template` that must stop the run.
"""

import concurrent.futures
import pathlib
import subprocess
import sys
import tempfile

CI = pathlib.Path(__file__).resolve().parent
TEMPLATE = CI.parent / "template.yaml"

FILTER = "            MetricsConfig: { Metrics: [EventCount] }\n"

# (what is wrong, text of the template, what it becomes, who must find it)
SEEDS = [
    ("misspelt property of an event", "BisectBatchOnFunctionError:", "BisectBatchOnFunctionErrors:", "sam-validate"),
    ("misspelt property of a function", "      MemorySize: 1024", "      MemorySise: 1024", "sam-validate"),
    ("misspelt property of a table", "BillingMode: PAY", "BilingMode: PAY", "sam-lint"),
    ("reference to nothing", "!Ref ProfilesTable\n", "!Ref ProfileTable\n", "cfn-lint"),
    ("limit out of range in an event", "MaximumRetryAttempts: 20", "MaximumRetryAttempts: 20000", "cfn-lint"),
    ("misspelt starting position", "TRIM_HORIZON", "TRIM_HORISON", "cfn-lint"),
    ("starting position with a letter too many", "TRIM_HORIZON", "LATESTS", "mappings-and-roles"),
    ("misspelt response type", "[ReportBatchItemFailures]", "[ReportBatchItemFailure]", "cfn-lint"),
    ("no partial batch responses", "            FunctionResponseTypes: [ReportBatchItemFailures]\n", "", "mappings-and-roles"),
    ("no failure destination", "OnFailure: { Destination: !GetAtt FailedBatches.Arn }", "{}", "mappings-and-roles"),
    ("filter that is not JSON", FILTER, FILTER + "            FilterCriteria: { Filters: [{ Pattern: '{\"data\": [' }] }\n", "mappings-and-roles"),
    ("filter on a bare value", FILTER, FILTER + "            FilterCriteria: { Filters: [{ Pattern: '{\"data\": {\"a\": 1}}' }] }\n", "mappings-and-roles"),
    ("stream without its own consumer", "Stream: !GetAtt ProfileWriterConsumer.ConsumerARN", "Stream: !GetAtt InteractionsStream.Arn", "mappings-and-roles"),
    ("wildcard action", "Action: kinesis:PutRecords", "Action: kinesis:*", "mappings-and-roles"),
    ("wildcard action in a policy of its own", "Action: ssm:GetParameter", "Action: ssm:*", "mappings-and-roles"),
    ("wildcard resource", "Resource: !GetAtt ProfilesTable.Arn", 'Resource: "*"', "mappings-and-roles"),
    ("action that does not exist", "dynamodb:BatchGetItem", "dynamodb:BatchGetItems", "cfn-lint"),
    ("action on a resource of another kind", "Resource: !GetAtt ProfilesTable.Arn", "Resource: !GetAtt TriggersStream.Arn", "mappings-and-roles"),
    ("role without fan-out", ", kinesis:SubscribeToShard]", "]", "mappings-and-roles"),
    ("schedule that is no rate", "Schedule: rate(1 minute)", "Schedule: rate(1 minutes)", "cfn-lint"),
    ("index without its attribute", "        - { AttributeName: due_shard, AttributeType: S }\n", "", "sam-lint"),
    ("bucket open to the world", "BlockPublicAcls: true", "BlockPublicAcls: false", "checkov"),
    ("table without recovery", "PointInTimeRecoveryEnabled: true", "PointInTimeRecoveryEnabled: false", "checkov"),
]


def plant(seed):
    title, text, replacement, who = seed
    original = TEMPLATE.read_text(encoding="utf-8")
    if text not in original:
        return f"{title}: the template no longer says {text!r}; mend this seed"
    with tempfile.TemporaryDirectory() as directory:
        planted = pathlib.Path(directory) / "template.yaml"
        planted.write_text(original.replace(text, replacement, 1), encoding="utf-8")
        run = subprocess.run([CI / "check-template", planted], capture_output=True, text=True, check=False)
    last_line = (run.stdout.strip().splitlines() or [""])[-1]
    if run.returncode == 0:
        return f"{title}: every check passed it"
    if last_line != f"template check failed: {who}":
        return f"{title}: expected {who} to find it, but: {run.stdout[-600:]}{run.stderr[-600:]}"
    return None


def main():
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        problems = [problem for problem in pool.map(plant, SEEDS) if problem]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"template self-test: {len(SEEDS) - len(problems)} of {len(SEEDS)} planted errors found by the check that should")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
