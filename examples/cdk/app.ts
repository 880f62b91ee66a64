// Two functions, one in Python and one in Node.js, whose profiles the extension carries to Pyroscope.
// How to deploy it: README.md. Node.js runs this file as it is; `npm run check` looks at its types.

import { App, CfnOutput, Duration, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import { PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Architecture, Code, Function, Runtime } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { FLUSH_MODES, LOG_LEVELS, PyroscopeExtension, type PyroscopeExtensionProps } from './pyroscope.ts';

const DIST = resolve(import.meta.dirname, '../../dist');

class Example extends Stack {
  constructor(app: App, id: string, settings: PyroscopeExtensionProps, props?: StackProps) {
    super(app, id, { description: 'Functions in Python and Node.js, profiled continuously', ...props });

    // Both functions' and the extension's lines. In the stack, so that it ends with it.
    const logGroup = new LogGroup(this, 'Logs', {
      retention: RetentionDays.ONE_WEEK,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // What a function needs to write its log. The extension adds the permission to read that one secret; nothing else.
    const role = new Role(this, 'Role', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    role.addToPolicy(
      new PolicyStatement({
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        resources: [logGroup.logGroupArn],
      }),
    );
    const common = {
      handler: 'function.handler',
      architecture: settings.architecture,
      memorySize: 512,
      timeout: Duration.seconds(30),
      role,
      logGroup,
    };
    const python = new Function(this, 'PythonFunction', {
      ...common,
      runtime: Runtime.PYTHON_3_13,
      code: Code.fromAsset(built('examples/python.zip', 'examples/functions/package')),
      environment: { PYROSCOPE_APPLICATION_NAME: 'lambda.example.python' },
    });
    const nodejs = new Function(this, 'NodejsFunction', {
      ...common,
      runtime: Runtime.NODEJS_24_X,
      code: Code.fromAsset(built('examples/nodejs.zip', 'examples/functions/package')),
      environment: { PYROSCOPE_APPLICATION_NAME: 'lambda.example.nodejs' },
    });

    const pyroscope = new PyroscopeExtension(this, 'Pyroscope', settings);
    pyroscope.attachTo(python);
    pyroscope.attachTo(nodejs);

    new CfnOutput(this, 'PythonFunctionName', { value: python.functionName });
    new CfnOutput(this, 'NodejsFunctionName', { value: nodejs.functionName });
    new CfnOutput(this, 'LogGroupName', { value: logGroup.logGroupName });
  }
}

/** A file under dist/, which that command makes. */
function built(name: string, command: string): string {
  const file = resolve(DIST, name);
  if (!existsSync(file)) throw new Error(`there is no dist/${name}: run ${command} first`);
  return file;
}

function oneOf<T extends string>(name: string, allowed: readonly T[], value: string): T {
  const found = allowed.find((one) => one === value);
  if (!found) throw new Error(`${name} is ${value}; it may be ${allowed.join(', ')}`);
  return found;
}

/** What is given on the command line: cdk deploy --context remoteAddress=https://... */
function settings(app: App): PyroscopeExtensionProps {
  const given = (name: string): string | undefined => app.node.tryGetContext(name);
  const remoteAddress = given('remoteAddress');
  if (!remoteAddress) throw new Error('say where the server is: --context remoteAddress=https://...');
  const architecture = oneOf('architecture', ['arm64', 'x86_64'], given('architecture') ?? 'arm64');
  const layerArn = given('layerArn');
  const flushMode = given('flushMode');
  return {
    remoteAddress,
    architecture: architecture === 'arm64' ? Architecture.ARM_64 : Architecture.X86_64,
    layerArn,
    layerZip: layerArn ? undefined : built(`pyroscope-lambda-extension-${architecture}.zip`, 'make layer'),
    basicAuthUser: given('basicAuthUser'),
    secretArn: given('secretArn'),
    tenantId: given('tenantId'),
    flushMode: flushMode ? oneOf('flushMode', FLUSH_MODES, flushMode) : undefined,
    logLevel: oneOf('logLevel', LOG_LEVELS, given('logLevel') ?? 'info'),
  };
}

const app = new App();
new Example(app, 'pyroscope-example', settings(app));
