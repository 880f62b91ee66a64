// Mends 0.4.3's CPU profiler, which throws on samples without a context, as today's @datadog/pprof has them and the one
// of its time had not; that one is not for today's Node.js. How the SDK sends is as it was.

import { WallProfiler } from './node_modules/@pyroscope/nodejs-chunked/dist/esm/profilers/wall-profiler.js';

WallProfiler.prototype.generateLabels = ({ context }) => ({ ...context?.context?.labels });
