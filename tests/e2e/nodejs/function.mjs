// A Lambda function that burns CPU while Pyroscope's Node.js SDK profiles it.
//
// The SDK's own settings for the address stay as they are, unless FUNCTION_SDK_ADDRESS is another: it
// sends to localhost:4040. It is given
// credentials of its own, so that the far end can tell whose arrived.

import { setImmediate } from 'node:timers/promises';

const { default: Pyroscope } = await import(process.env.FUNCTION_SDK);

Pyroscope.init({
  appName: process.env.FUNCTION_SERVICE,
  authToken: 'of-the-sdk',
  tags: { team: 'e2e' },
  ...(process.env.FUNCTION_SDK_ADDRESS && { serverAddress: process.env.FUNCTION_SDK_ADDRESS }),
  ...JSON.parse(process.env.FUNCTION_SDK_OPTIONS),
});
Pyroscope.start();

function burnNodeCpu(until) {
  let burned = 0;
  while (performance.now() < until) {
    for (let i = 0; i < 1000; i += 1) burned += Math.sqrt(i);
  }
  return burned;
}

export async function handler(event) {
  const until = performance.now() + event.seconds * 1000;
  let burned = 0;
  while (performance.now() < until) {
    burned += burnNodeCpu(Math.min(performance.now() + 50, until));
    // The SDK uploads from a timer, which a handler that never yields would keep from running.
    await setImmediate();
  }
  return { burned };
}
