"""Runs .ci/publish with the real AWS CLI against moto, which answers as AWS does, and looks at what is there then.

Started by .ci/examples/check, with the CLI on the path and moto installed.
"""

import base64
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import unittest
import urllib.request
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parent.parent.parent
ACCOUNT = "123456789012"
NAME = "pyroscope-lambda-extension"
logging.getLogger("werkzeug").setLevel(logging.ERROR)


class Publish(unittest.TestCase):
    def setUp(self):
        moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        moto.start()
        self.addCleanup(moto.stop)
        self.endpoint = "http://{}:{}".format(*moto.get_host_and_port())
        urllib.request.urlopen(f"{self.endpoint}/moto-api/reset", data=b"", timeout=30).close()
        # A copy of what the script reads, so that the zips may change between two runs.
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        for folder in (".ci", "dist"):
            (self.root / folder).mkdir()
        shutil.copy(ROOT / ".ci" / "publish", self.root / ".ci")
        shutil.copy(ROOT / "Cargo.toml", self.root)
        for archive in (ROOT / "dist").glob(f"{NAME}-*.zip"):
            shutil.copy(archive, self.root / "dist")
        # Of this machine's own settings for AWS, none is to be met.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment = kept | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def run_it(self, *arguments, **environment):
        return subprocess.run(
            [self.root / ".ci" / "publish", *arguments],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def succeeds(self, *arguments, **environment):
        run = self.run_it(*arguments, **environment)
        self.assertEqual(run.returncode, 0, run.stderr)
        print(f"\n$ .ci/publish {' '.join(arguments)}\n{run.stdout}", end="")
        # Region, processor, ARN, state of each line of the table.
        return re.findall(r"^([\w-]+-\d)  +(\w+)  +(arn:\S+)  +(.+)$", run.stdout, re.M)

    def refused(self, why, *arguments, **environment):
        run = self.run_it(*arguments, **environment)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn(why, run.stderr)
        self.assertEqual(run.stdout, "")

    def aws(self, region):
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("lambda", region, endpoint_url=self.endpoint, **keys)

    def versions(self, region, processor):
        answer = self.aws(region).list_layer_versions(LayerName=f"{NAME}-{processor}")
        return [version["Version"] for version in answer["LayerVersions"]]

    def is_public(self, region, processor, version):
        aws = self.aws(region)
        try:
            policy = aws.get_layer_version_policy(LayerName=f"{NAME}-{processor}", VersionNumber=version)["Policy"]
        except aws.exceptions.ResourceNotFoundException:
            return False
        [statement] = json.loads(policy)["Statement"]
        return (statement["Action"], statement["Principal"]) == ("lambda:GetLayerVersion", "*")

    def test_rehearses_without_aws(self):
        table = self.succeeds("eu-west-1", PATH=os.defpath, AWS_ENDPOINT_URL="http://127.0.0.1:9")
        self.assertEqual([row[1:4:2] for row in table], [(p, "would be published") for p in ("x86_64", "arm64")])
        self.assertEqual(self.versions("eu-west-1", "arm64"), [])

    def test_publishes_once_and_is_public_when_asked(self):
        table = self.succeeds("--publish", "eu-west-1", "us-east-1")
        arn = "arn:aws:lambda:{}:" + ACCOUNT + ":layer:" + NAME + "-{}:1"
        places = [(region, processor) for region in ("eu-west-1", "us-east-1") for processor in ("x86_64", "arm64")]
        self.assertEqual(table, [(*place, arn.format(*place), "published") for place in places])
        for place in places:
            self.holds(*place)
            self.assertFalse(self.is_public(*place, 1))

        table = self.succeeds("--publish", "--public", "eu-west-1")
        self.assertEqual([row[3] for row in table], ["already there, public"] * 2)
        self.assertEqual(self.versions("eu-west-1", "x86_64"), [1])
        self.assertTrue(self.is_public("eu-west-1", "x86_64", 1))

        # Other bytes for one processor are a second version of that one, and of no other.
        with open(self.root / "dist" / f"{NAME}-arm64.zip", "ab") as archive:
            archive.write(b"other")
        table = self.succeeds("--publish", "--public", "eu-west-1")
        self.assertEqual([row[3] for row in table], ["already there, public", "published, public"])
        self.assertEqual(self.versions("eu-west-1", "x86_64"), [1])
        self.assertEqual(self.versions("eu-west-1", "arm64"), [2, 1])
        self.assertTrue(self.is_public("eu-west-1", "arm64", 2))
        self.assertFalse(self.is_public("us-east-1", "arm64", 1))

    def holds(self, region, processor):
        """What AWS has is what is in dist/, and says what it is."""
        there = self.aws(region).get_layer_version(LayerName=f"{NAME}-{processor}", VersionNumber=1)
        archive = (ROOT / "dist" / f"{NAME}-{processor}.zip").read_bytes()
        sha256 = base64.b64encode(hashlib.sha256(archive).digest()).decode()
        self.assertEqual(there["Content"]["CodeSha256"], sha256)
        self.assertEqual(there["Content"]["CodeSize"], len(archive))
        self.assertEqual(there["CompatibleArchitectures"], [processor])
        self.assertEqual(there["LicenseInfo"], "Apache-2.0")
        self.assertRegex(there["Description"], rf"^{NAME} \d+\.\d+\.\d+, {processor}$")

    def test_stops_with_a_reason(self):
        self.refused("which regions?", "--publish")
        self.refused("mars is no region", "--publish", "eu-west-1", "mars")
        self.refused("is no name for a layer", "--publish", "--layer", "a b", "eu-west-1")
        (self.root / "bin").mkdir()
        (self.root / "bin" / "python3").symlink_to(shutil.which("python3"))
        self.refused("there is no aws here", "--publish", "eu-west-1", PATH=str(self.root / "bin"))
        nobody = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
        self.refused("AWS does not take these credentials", "--publish", "eu-west-1", **nobody)
        self.refused("Could not connect", "--publish", "eu-west-1", AWS_ENDPOINT_URL="http://127.0.0.1:9")
        (self.root / "dist" / f"{NAME}-arm64.zip").unlink()
        self.refused("run make layer first", "--publish", "eu-west-1")
        self.assertEqual(self.versions("eu-west-1", "x86_64"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
