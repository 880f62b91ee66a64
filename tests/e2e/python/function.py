"""A Lambda function that burns CPU while Pyroscope's Python SDK profiles it.

The SDK's own settings for the address stay as they are, unless FUNCTION_SDK_ADDRESS is another: it sends to
localhost:4040. It is given credentials
of its own, so that the far end can tell whose arrived.
"""

import json
import os
import time

import pyroscope

address = os.environ.get("FUNCTION_SDK_ADDRESS")

pyroscope.configure(
    application_name=os.environ["FUNCTION_SERVICE"],
    basic_auth_username="of-the-sdk",
    basic_auth_password="of-the-sdk",
    tags={"team": "e2e"},
    **({"server_address": address} if address else {}),
    **json.loads(os.environ["FUNCTION_SDK_OPTIONS"]),
)


def burn_python_cpu(seconds):
    until = time.monotonic() + seconds
    burned = 0
    while time.monotonic() < until:
        burned += sum(range(1000))
    return burned


def handler(event, context):
    return {"burned": burn_python_cpu(event["seconds"])}
