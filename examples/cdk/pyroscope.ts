// The extension as a construct: new PyroscopeExtension(this, 'Pyroscope', { ... }).attachTo(anyFunction)
// Copy this file into your app; it needs aws-cdk-lib and nothing else.

import { RemovalPolicy } from 'aws-cdk-lib';
import { Effect, PolicyStatement } from 'aws-cdk-lib/aws-iam';
import { Architecture, Code, Function, type ILayerVersion, LayerVersion } from 'aws-cdk-lib/aws-lambda';
import { Construct } from 'constructs';

export const FLUSH_MODES = ['none', 'invoke', 'end'] as const;
export const LOG_LEVELS = ['error', 'warn', 'info', 'debug', 'trace'] as const;

export interface PyroscopeExtensionProps {
  /** The Pyroscope server, https://... */
  remoteAddress: string;
  /** The functions' processor. */
  architecture: Architecture;
  /** A published layer version for this processor; without it, layerZip is published. */
  layerArn?: string;
  /** The zip of `make layer` or of a release, for this processor. */
  layerZip?: string;
  /** Grafana Cloud's number for Pyroscope; without it, the secret is a bearer token. */
  basicAuthUser?: string;
  /** The ARN of the secret in Secrets Manager that is the password or the token. */
  secretArn?: string;
  tenantId?: string;
  /** Labels for every profile; the default is the function's version. */
  labels?: Record<string, string>;
  /** When Lambda may freeze the sandbox after an invocation. */
  flushMode?: (typeof FLUSH_MODES)[number];
  logLevel?: (typeof LOG_LEVELS)[number];
}

/** The layer, and what a function needs with it. */
export class PyroscopeExtension extends Construct {
  readonly layer: ILayerVersion;
  /** The functions' variables. The secret is not among them, but its ARN: the extension reads it while the function runs. */
  readonly environment: Record<string, string>;
  private readonly secretArn: string | undefined;

  constructor(scope: Construct, id: string, props: PyroscopeExtensionProps) {
    super(scope, id);
    this.secretArn = props.secretArn;
    this.environment = environment(props);
    this.layer = this.find(props);
  }

  /** Adds the layer, the variables, and the permission to read the secret. What the function has already stays. */
  attachTo(target: Function): void {
    target.addLayers(this.layer);
    for (const [name, value] of Object.entries(this.environment)) target.addEnvironment(name, value);
    if (this.secretArn) {
      const read = { effect: Effect.ALLOW, actions: ['secretsmanager:GetSecretValue'], resources: [this.secretArn] };
      target.addToRolePolicy(new PolicyStatement(read));
    }
  }

  private find({ architecture, layerArn, layerZip }: PyroscopeExtensionProps): ILayerVersion {
    if (layerArn) return LayerVersion.fromLayerVersionArn(this, 'Layer', layerArn);
    if (!layerZip) throw new Error('PyroscopeExtension needs layerArn or layerZip');
    return new LayerVersion(this, 'Layer', {
      code: Code.fromAsset(layerZip),
      compatibleArchitectures: [architecture],
      license: 'Apache-2.0',
      removalPolicy: RemovalPolicy.DESTROY,
    });
  }
}

function environment(props: PyroscopeExtensionProps): Record<string, string> {
  const labels = props.labels ?? { version: '${AWS_LAMBDA_FUNCTION_VERSION}' };
  const variables: Record<string, string | undefined> = {
    PYROSCOPE_REMOTE_ADDRESS: props.remoteAddress,
    PYROSCOPE_BASIC_AUTH_USER: props.basicAuthUser,
    PYROSCOPE_TENANT_ID: props.tenantId,
    PYROSCOPE_LABELS: JSON.stringify(labels),
    PYROSCOPE_FLUSH_MODE: props.flushMode,
    PYROSCOPE_LOG_LEVEL: props.logLevel,
    [props.basicAuthUser ? 'PYROSCOPE_BASIC_AUTH_PASSWORD' : 'PYROSCOPE_AUTH_TOKEN']: props.secretArn,
  };
  const isSet = (entry: [string, string | undefined]): entry is [string, string] => Boolean(entry[1]);
  return Object.fromEntries(Object.entries(variables).filter(isSet));
}
