"""A Lambda function that burns CPU for as long as its event says, under Pyroscope's Python SDK.

Nothing in it knows where the profiles go in the end, or with which credentials: the SDK sends them to the
extension, which listens on localhost:4040 in the same sandbox.
"""

import os
import time

import pyroscope

pyroscope.configure(
    application_name=os.environ["PYROSCOPE_APPLICATION_NAME"],
    server_address="http://localhost:4040",
    # So short that the first invocation is in the first flame graph; the default is 10.
    upload_interval=1,
    tags={"region": os.environ.get("AWS_REGION", "none")},
)


def is_prime(number):
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def count_primes(below):
    return sum(1 for number in range(below) if is_prime(number))


def handler(event, context):
    seconds = float((event or {}).get("seconds", 2))
    until = time.monotonic() + seconds
    primes = 0
    while time.monotonic() < until:
        primes = count_primes(10_000)
    return {"burned": seconds, "primes": primes}
