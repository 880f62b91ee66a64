# The extension alone, as an image to copy from. How to build and use it: README.md

# Of what make layer built, the one for the processor that the image is for.
ARG TARGETARCH
FROM scratch AS extension-amd64
COPY --chmod=0755 dist/x86_64/extensions/pyroscope-lambda-extension /opt/extensions/
FROM scratch AS extension-arm64
COPY --chmod=0755 dist/arm64/extensions/pyroscope-lambda-extension /opt/extensions/

# hadolint ignore=DL3006
FROM extension-${TARGETARCH}
# The licences of its parts, where the layer has them.
COPY dist/NOTICE /opt/pyroscope-lambda-extension/
