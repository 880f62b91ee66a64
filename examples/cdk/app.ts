// Two functions, one in Python and one in Node.js, whose profiles the extension carries to Pyroscope.
// How to deploy it: README.md. Node.js runs this file as it is; `npm run check` looks at its types.

import { App, CfnOutput, Duration, RemovalPolicy, Stack, type StackProps } from 'aws-cdk-lib';
import { PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Architecture, Code, Function, type ILayerVersion, LayerVersion, Runtime } from 'aws-cdk-lib/aws-lambda';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';

const DIST = resolve(import.meta.dirname, '../../dist');

/** What may be said on the command line: cdk deploy --context remoteAddress=https://... */
interface Settings {
  /** The Pyroscope server. */
  remoteAddress: string;
  architecture: 'arm64' | 'x86_64';
  /** A published layer version for this processor; without it, the one in dist/ is published. */
  layerArn?: string;
  /** Grafana Cloud's number for Pyroscope; without it, the secret is a bearer token. */
  basicAuthUser?: string;
  /** The ARN of the secret in Secrets Manager that is the password or the token. */
  secretArn?: string;
  tenantId?: string;
  /** When Lambda may freeze the sandbox after an invocation. */
  flushMode: 'none' | 'invoke' | 'end';
  logLevel: string;
}

class Example extends Stack {
  constructor(app: App, id: string, settings: Settings, props?: StackProps) {
    super(app, id, { description: 'Functions in Python and Node.js, profiled continuously', ...props });

    // Both functions' and the extension's lines. In the stack, so that it ends with it.
    const logGroup = new LogGroup(this, 'Logs', {
      retention: RetentionDays.ONE_WEEK,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    // What a function needs to write its log, and the extension to read that one secret; nothing else.
    const role = new Role(this, 'Role', { assumedBy: new ServicePrincipal('lambda.amazonaws.com') });
    role.addToPolicy(
      new PolicyStatement({
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        resources: [logGroup.logGroupArn],
      }),
    );
    if (settings.secretArn) {
      role.addToPolicy(new PolicyStatement({ actions: ['secretsmanager:GetSecretValue'], resources: [settings.secretArn] }));
    }
    const layer = this.layer(settings);
    const common = {
      handler: 'function.handler',
      architecture: settings.architecture === 'arm64' ? Architecture.ARM_64 : Architecture.X86_64,
      memorySize: 512,
      timeout: Duration.seconds(30),
      layers: [layer],
      role,
      logGroup,
    };
    const python = new Function(this, 'PythonFunction', {
      ...common,
      runtime: Runtime.PYTHON_3_13,
      code: Code.fromAsset(built('examples/python.zip', 'examples/functions/package')),
      environment: environment(settings, 'lambda.example.python'),
    });
    const nodejs = new Function(this, 'NodejsFunction', {
      ...common,
      runtime: Runtime.NODEJS_24_X,
      code: Code.fromAsset(built('examples/nodejs.zip', 'examples/functions/package')),
      environment: environment(settings, 'lambda.example.nodejs'),
    });

    new CfnOutput(this, 'PythonFunctionName', { value: python.functionName });
    new CfnOutput(this, 'NodejsFunctionName', { value: nodejs.functionName });
    new CfnOutput(this, 'LogGroupName', { value: logGroup.logGroupName });
  }

  private layer({ architecture, layerArn }: Settings): ILayerVersion {
    if (layerArn) return LayerVersion.fromLayerVersionArn(this, 'Layer', layerArn);
    return new LayerVersion(this, 'Layer', {
      code: Code.fromAsset(built(`pyroscope-lambda-extension-${architecture}.zip`, 'make layer')),
      compatibleArchitectures: [architecture === 'arm64' ? Architecture.ARM_64 : Architecture.X86_64],
      license: 'Apache-2.0',
      removalPolicy: RemovalPolicy.DESTROY,
    });
  }
}

/** The functions' variables. The secret is not among them, but its ARN: the extension reads it while the function runs. */
function environment(settings: Settings, applicationName: string): Record<string, string> {
  const variables: Record<string, string | undefined> = {
    PYROSCOPE_APPLICATION_NAME: applicationName,
    PYROSCOPE_REMOTE_ADDRESS: settings.remoteAddress,
    PYROSCOPE_BASIC_AUTH_USER: settings.basicAuthUser,
    PYROSCOPE_TENANT_ID: settings.tenantId,
    PYROSCOPE_FLUSH_MODE: settings.flushMode,
    PYROSCOPE_LOG_LEVEL: settings.logLevel,
  };
  if (settings.secretArn) {
    const kind = settings.basicAuthUser ? 'PYROSCOPE_BASIC_AUTH_PASSWORD' : 'PYROSCOPE_AUTH_TOKEN';
    variables[kind] = settings.secretArn;
  }
  const isSet = (entry: [string, string | undefined]): entry is [string, string] => Boolean(entry[1]);
  return Object.fromEntries(Object.entries(variables).filter(isSet));
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

function settings(app: App): Settings {
  const given = (name: string): string | undefined => app.node.tryGetContext(name);
  const remoteAddress = given('remoteAddress');
  if (!remoteAddress) throw new Error('say where the server is: --context remoteAddress=https://...');
  return {
    remoteAddress,
    architecture: oneOf('architecture', ['arm64', 'x86_64'], given('architecture') ?? 'arm64'),
    layerArn: given('layerArn'),
    basicAuthUser: given('basicAuthUser'),
    secretArn: given('secretArn'),
    tenantId: given('tenantId'),
    flushMode: oneOf('flushMode', ['none', 'invoke', 'end'], given('flushMode') ?? 'none'),
    logLevel: oneOf('logLevel', ['error', 'warn', 'info', 'debug', 'trace'], given('logLevel') ?? 'info'),
  };
}

const app = new App();
new Example(app, 'pyroscope-example', settings(app));
