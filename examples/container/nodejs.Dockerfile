# A Node.js function on AWS's base image, with the extension. How to build it: README.md

# Of what make layer built, the one for the processor that the image is for.
ARG TARGETARCH
FROM scratch AS extension-amd64
COPY --chmod=0755 dist/x86_64/extensions/pyroscope-lambda-extension /opt/extensions/
FROM scratch AS extension-arm64
COPY --chmod=0755 dist/arm64/extensions/pyroscope-lambda-extension /opt/extensions/
# hadolint ignore=DL3006
FROM extension-${TARGETARCH} AS extension

FROM public.ecr.aws/lambda/nodejs:24
WORKDIR /var/task
COPY examples/functions/nodejs/package.json examples/functions/nodejs/package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts
COPY examples/functions/nodejs/function.mjs ./

# All there is to it. Lambda starts every file in /opt/extensions, so nothing but extensions may lie there.
COPY --from=extension /opt/extensions/ /opt/extensions/

ENV PYROSCOPE_APPLICATION_NAME=lambda.example.nodejs
CMD ["function.handler"]
