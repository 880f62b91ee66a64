"""Runs examples/attach, and the commands of README's Quick start that ask AWS for something, with the real AWS CLI against
moto, which answers as AWS does, and looks at the function then.

Started by .ci/examples/check, with the CLI on the path and moto installed.
"""

import io
import logging
import os
import re
import subprocess
import tempfile
import unittest
import urllib.request
import zipfile
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
REGION = "eu-west-1"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:pyroscope-AbCdEf"
BEFORE = {"STAGE": "production", "EMPTY": "", "QUOTED": 'a "b" \\ {c},d=e', "PYROSCOPE_TENANT_ID": "old"}
logging.getLogger("werkzeug").setLevel(logging.ERROR)


def archive():
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as made:
        made.writestr("function.py", "def handler(event, context): pass")
    return content.getvalue()


class Attach(unittest.TestCase):
    def setUp(self):
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        self.addCleanup(moto.stop)
        self.endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"", timeout=30).close()
        self.aws = boto3.client("lambda", REGION, endpoint_url=self.endpoint, **KEYS)
        self.other = self.layer("observability-of-others", "x86_64")
        self.old = self.layer("pyroscope-lambda-extension-x86_64", "x86_64")
        self.new = self.layer("pyroscope-lambda-extension-x86_64", "x86_64")
        self.arm64 = self.layer("pyroscope-lambda-extension-arm64", "arm64")
        iam = boto3.client("iam", REGION, endpoint_url=self.endpoint, **KEYS)
        role = iam.create_role(RoleName="function", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
        self.aws.create_function(
            FunctionName="shop", Runtime="python3.13", Handler="function.handler", Role=role, Code={"ZipFile": archive()},
            Architectures=["x86_64"], Layers=[self.other], Environment={"Variables": BEFORE},
        )  # fmt: skip

    def layer(self, name, processor):
        made = self.aws.publish_layer_version(
            LayerName=name, Content={"ZipFile": archive()}, CompatibleArchitectures=[processor]
        )
        return made["LayerVersionArn"]

    def attach(self, *arguments):
        return self.run_it([ROOT / "examples/attach", *arguments])

    def run_it(self, command, **more):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return subprocess.run(
            command,
            env=kept | {
                "AWS_ENDPOINT_URL": self.endpoint,
                "AWS_ACCESS_KEY_ID": "testing",
                "AWS_SECRET_ACCESS_KEY": "testing",
                "AWS_DEFAULT_REGION": REGION,
                "AWS_CONFIG_FILE": "/nonexistent",
                "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            **{"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120} | more,
        )  # fmt: skip

    def succeeds(self, *arguments):
        ran = self.attach(*arguments)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        print(f"\n$ examples/attach {' '.join(arguments)}\n{ran.stdout}", end="")
        return ran.stdout

    def refused(self, why, *arguments):
        before = self.function()
        ran = self.attach(*arguments)
        self.assertNotEqual(ran.returncode, 0)
        self.assertIn(why, ran.stderr)
        self.assertEqual(self.function(), before)

    def function(self):
        there = self.aws.get_function_configuration(FunctionName="shop")
        return [layer["Arn"] for layer in there.get("Layers", [])], there["Environment"]["Variables"]

    def test_what_was_there_before_is_there_afterwards(self):
        given = ["PYROSCOPE_BASIC_AUTH_USER=123456", f"PYROSCOPE_BASIC_AUTH_PASSWORD={SECRET}"]
        said = self.succeeds("shop", self.old, *given)
        self.assertIn("nothing was changed yet", said)
        self.assertEqual(self.function(), ([self.other], BEFORE))

        said = self.succeeds("shop", self.old, *given, "--write")
        self.assertNotIn(BEFORE["QUOTED"], said)
        added = dict(setting.split("=") for setting in given)
        self.assertEqual(self.function(), ([self.other, self.old], BEFORE | added))
        self.assertIn("nothing to change", self.succeeds("shop", self.old, "--write"))

    def test_a_version_replaces_another_and_goes_away(self):
        self.succeeds("shop", self.old, "--write")
        self.succeeds("shop", self.new, "PYROSCOPE_TENANT_ID=", "--write")
        left = {name: value for name, value in BEFORE.items() if name != "PYROSCOPE_TENANT_ID"}
        self.assertEqual(self.function(), ([self.other, self.new], left))
        self.succeeds("shop", "--remove", "--write")
        self.assertEqual(self.function(), ([self.other], left))

    def test_a_layer_that_cannot_work_is_refused(self):
        self.refused("the layer is for arm64 and shop runs on x86_64", "shop", self.arm64, "--write")
        self.refused("and shop in eu-west-1", "shop", self.new.replace(REGION, "us-east-1"), "--write")
        self.refused("is not the ARN of a layer version", "shop", self.new.rpartition(":")[0], "--write")
        self.refused("is not a setting", "shop", self.new, "TOKEN", "--write")
        self.refused("failed; nothing was changed", "cart", self.new, "--write")

    def test_an_empty_shell_variable_is_noticed(self):
        self.refused("an argument is empty", "shop", "", "--write")
        self.refused("an argument is empty", "", self.new, "--write")
        ran = self.attach("shop", self.new, "PYROSCOPE_BASIC_AUTH_PASSWORD=", "PYROSCOPE_TENANT_ID=")
        self.assertIn("PYROSCOPE_BASIC_AUTH_PASSWORD= removes nothing", ran.stderr)
        self.assertNotIn("PYROSCOPE_TENANT_ID= removes nothing", ran.stderr)

    def test_variables_change_without_a_layer_in_any_order_of_arguments(self):
        self.succeeds("shop", self.old, "--write")
        self.succeeds("--write", "shop", "STAGE=", "PYROSCOPE_SAMPLE=0.1")
        left = {name: value for name, value in BEFORE.items() if name != "STAGE"} | {"PYROSCOPE_SAMPLE": "0.1"}
        self.assertEqual(self.function(), ([self.other, self.old], left))
        self.succeeds("shop", "--remove", "PYROSCOPE_SAMPLE=", "--write", "PYROSCOPE_TENANT_ID=")
        left = {name: value for name, value in BEFORE.items() if name not in ("STAGE", "PYROSCOPE_TENANT_ID")}
        self.assertEqual(self.function(), ([self.other], left))
        self.refused("nothing is asked for", "shop", "--write")
        self.refused("are two layers", "shop", self.old, self.new, "--write")

    def test_a_version_or_an_alias_is_refused(self):
        arn = self.aws.get_function_configuration(FunctionName="shop")["FunctionArn"]
        for name in "shop:1", "shop:live", f"{arn}:1", "123456789012:function:shop:$LATEST":
            self.refused("names a version or an alias", name, self.old, "--write")
        self.assertIn("nothing was changed yet", self.succeeds(arn, self.old))

    def test_the_preview_has_each_layer_in_its_place(self):
        self.aws.update_function_configuration(FunctionName="shop", Layers=[self.old, self.other])
        said = self.succeeds("shop", self.new, "--write")
        self.assertEqual(said.splitlines()[1:4], [f"  - {self.old}", f"  + {self.new}", f"    {self.other}"])
        self.assertEqual(self.function()[0], [self.new, self.other])

    def test_a_layer_of_another_name_stays_and_is_named(self):
        theirs, renamed = self.layer("their-pyroscope", "x86_64"), self.layer("profiles", "x86_64")
        self.aws.update_function_configuration(FunctionName="shop", Layers=[theirs, renamed])
        newer = self.layer("profiles", "x86_64")
        warning = f"{theirs} stays: if it holds a Pyroscope extension, remove it"
        self.assertIn(warning, self.attach("shop", newer, "--write").stderr)
        self.assertEqual(self.function()[0], [theirs, newer])
        self.assertNotIn("stays", self.attach("shop", "--remove", theirs, "--write").stderr)
        self.assertEqual(self.function()[0], [newer])
        self.refused("has no layer", "shop", "--remove", theirs, "--write")

        self.aws.update_function_configuration(FunctionName="shop", Layers=[self.old, self.layer("Extension-for-Pyroscope", "x86_64")])
        self.assertIn("two of its layers look like Pyroscope extensions", self.attach("shop", self.new, "--write").stderr)
        self.assertEqual(self.function()[0], [self.new])

    def test_a_sixth_layer_is_refused(self):
        five = [self.layer(f"of-others-{n}", "x86_64") for n in range(5)]
        self.aws.update_function_configuration(FunctionName="shop", Layers=five)
        self.refused("would have 6 layers, and Lambda takes 5", "shop", self.old)
        self.refused("would have 6 layers, and Lambda takes 5", "shop", self.old, "--write")

    def test_readme_leaves_what_was_there(self):
        readme = (ROOT / "README.md").read_text()
        steps = readme[readme.index("### 3. "):readme.index("### 5. ")]
        ask, store, take, permit, attach = re.findall(r"^```sh\n(.*?)^```", steps, re.DOTALL | re.MULTILINE)
        # What a reader puts in: the function's name, the layer's ARN, the password.
        for name, value in {"FUNCTION": "shop", "LAYER": self.old}.items():
            attach, count = re.subn(rf"^{name}=.*", f"{name}={value}", attach, flags=re.MULTILINE)
            self.assertEqual(count, 1)
        permit = permit.replace("FUNCTION=my-function", "FUNCTION=shop")
        # A command that reads must end what is pasted: it would read the next line.
        self.assertEqual(ask, "read -rs PASSWORD\n")
        script = f"set -euo pipefail\n{ask}{store}{take}{permit}\n{attach.rstrip()}\n{attach.rstrip()} --write\n"
        ran = self.run_it(["bash", "-c", script], input="a 'password'\n")
        self.assertEqual(ran.returncode, 0, ran.stderr)
        print(f"\n$ README.md, 3. and 4.\n{ran.stdout}", end="")
        self.assertNotIn("password'", ran.stdout + ran.stderr)

        secrets = boto3.client("secretsmanager", REGION, endpoint_url=self.endpoint, **KEYS)
        secret = secrets.get_secret_value(SecretId="pyroscope")
        self.assertEqual(secret["SecretString"], "a 'password'")
        iam = boto3.client("iam", REGION, endpoint_url=self.endpoint, **KEYS)
        policy = iam.get_role_policy(RoleName="function", PolicyName="read-pyroscope-secret")["PolicyDocument"]
        [statement] = policy["Statement"]
        self.assertEqual((statement["Action"], statement["Resource"]), ("secretsmanager:GetSecretValue", secret["ARN"]))
        layers, variables = self.function()
        self.assertEqual(layers, [self.other, self.old])
        self.assertEqual(variables, BEFORE | {
            "PYROSCOPE_REMOTE_ADDRESS": "https://profiles-prod-001.grafana.net",
            "PYROSCOPE_BASIC_AUTH_USER": "123456",
            "PYROSCOPE_BASIC_AUTH_PASSWORD": secret["ARN"],
        })  # fmt: skip

    def test_the_commands_of_rollout_change_and_go_back(self):
        page = (ROOT / "docs/rollout.md").read_text()
        blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        find, share, everything, nothing_more, rest, back, *filters = blocks
        grafana = self.layer("pyroscope-lambda-extension", "x86_64")
        self.aws.update_function_configuration(FunctionName="shop", Layers=[grafana, self.other])
        first = self.aws.publish_version(FunctionName="shop")["Version"]
        self.aws.create_alias(FunctionName="shop", Name="live", FunctionVersion=first)
        logs = boto3.client("logs", REGION, endpoint_url=self.endpoint, **KEYS)
        logs.create_log_group(logGroupName="/aws/lambda/my-function")
        with tempfile.TemporaryDirectory() as scratch:
            (Path(scratch) / "examples").symlink_to(ROOT / "examples")

            def runs(*scripts):
                script = "\n".join(scripts)
                for name, value in {"FUNCTION": "shop ALIAS=live", "LAYER": self.new, "X86_64": self.new, "ARM64": self.arm64}.items():
                    script = re.sub(rf"^{name}=.*", f"{name}={value}", script, flags=re.MULTILINE)
                ran = self.run_it(["bash", "-c", f"set -euo pipefail\n{script}"], cwd=scratch)
                self.assertEqual(ran.returncode, 0, ran.stderr)
                self.assertFalse((Path(scratch) / "failed.txt").exists(), ran.stderr)

            def alias():
                there = self.aws.get_alias(FunctionName="shop", Name="live")
                return there["FunctionVersion"], there.get("RoutingConfig", {}).get("AdditionalVersionWeights", {})

            runs(find)
            self.assertEqual((Path(scratch) / "functions.txt").read_text(), f"shop\tx86_64\t{grafana}\n")
            # moto knows nothing of an update that takes time.
            share = share.replace("aws lambda wait function-updated-v2", "aws lambda get-function-configuration")
            runs(share, nothing_more)
            self.assertEqual(alias(), (first, {}))
            runs(share)
            version, weights = alias()
            [new] = weights
            self.assertEqual((version, weights), (first, {new: 0.1}))
            runs(f"FUNCTION=shop\nNEW={new}", everything)
            self.assertEqual(alias(), (new, {}))
            self.aws.update_function_configuration(FunctionName="shop", Layers=[grafana, self.other])
            runs(rest)
            self.assertEqual(self.function(), ([grafana, self.other], BEFORE))
            runs(rest.replace("WRITE=\n", "WRITE=--write\n"))
            self.assertEqual(self.function(), ([self.new, self.other], BEFORE))
            runs(back)
            self.assertEqual(self.function(), ([grafana, self.other], BEFORE))
            runs(*filters)
            made = logs.describe_metric_filters(logGroupName="/aws/lambda/my-function")["metricFilters"]
            self.assertEqual(sorted(one["metricTransformations"][0]["metricValue"] for one in made), ["$.lost", "1"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
