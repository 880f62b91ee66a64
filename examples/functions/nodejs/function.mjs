// A Lambda function that burns CPU for as long as its event says, under Pyroscope's Node.js SDK.
//
// Nothing in it knows where the profiles go in the end, or with which credentials: the SDK sends them to the
// extension, which listens on localhost:4040 in the same sandbox.

import { setImmediate } from 'node:timers/promises';
import Pyroscope from '@pyroscope/nodejs';

Pyroscope.init({
  appName: process.env.PYROSCOPE_APPLICATION_NAME,
  serverAddress: 'http://localhost:4040',
  // So short that the first invocation is in the first flame graph; the default is a minute.
  flushIntervalMs: 1000,
  wall: { collectCpuTime: true },
  tags: { region: process.env.AWS_REGION ?? 'none' },
});
Pyroscope.start();

function isPrime(number) {
  for (let divisor = 2; divisor * divisor <= number; divisor += 1) {
    if (number % divisor === 0) return false;
  }
  return number > 1;
}

function countPrimes(below) {
  let primes = 0;
  for (let number = 0; number < below; number += 1) primes += isPrime(number) ? 1 : 0;
  return primes;
}

export async function handler(event) {
  const seconds = Number(event?.seconds ?? 2);
  const until = performance.now() + seconds * 1000;
  let primes = 0;
  while (performance.now() < until) {
    primes = countPrimes(100_000);
    // The SDK uploads from a timer, which a handler that never yields would keep from running.
    await setImmediate();
  }
  return { burned: seconds, primes };
}
