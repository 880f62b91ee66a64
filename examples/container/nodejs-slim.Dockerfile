# A Node.js function on an image that knows nothing of Lambda, with AWS's runtime interface client and the extension.
# How to build it: README.md

# Of what make layer built, the one for the processor that the image is for.
ARG TARGETARCH
FROM scratch AS extension-amd64
COPY --chmod=0755 dist/x86_64/extensions/pyroscope-lambda-extension /opt/extensions/
FROM scratch AS extension-arm64
COPY --chmod=0755 dist/arm64/extensions/pyroscope-lambda-extension /opt/extensions/
# hadolint ignore=DL3006
FROM extension-${TARGETARCH} AS extension

# The runtime interface client compiles its half in C++ as it is installed.
FROM node:24-slim AS packages
# hadolint ignore=DL3008
RUN apt-get update && \
    apt-get install --yes --no-install-recommends cmake g++ make python3 xz-utils && \
    rm -rf /var/lib/apt/lists/*
WORKDIR /var/task
COPY examples/functions/nodejs/package.json examples/functions/nodejs/package-lock.json ./
# It is to take Node.js's headers from the image, rather than fetch them.
RUN npm ci --omit=dev --ignore-scripts && \
    npm_package_config_node_gyp_nodedir=/usr/local npm install --no-save aws-lambda-ric@4.0.2

FROM node:24-slim
WORKDIR /var/task
COPY --from=packages /var/task/node_modules/ ./node_modules/
COPY examples/functions/nodejs/package.json examples/functions/nodejs/function.mjs ./

# All there is to it. Lambda starts every file in /opt/extensions, so nothing but extensions may lie there.
COPY --from=extension /opt/extensions/ /opt/extensions/

ENV PYROSCOPE_APPLICATION_NAME=lambda.example.nodejs
ENTRYPOINT ["node", "node_modules/aws-lambda-ric/index.mjs"]
CMD ["function.handler"]
