# A Python function on an image that knows nothing of Lambda, with AWS's runtime interface client and the extension.
# How to build it: README.md

# Of what make layer built, the one for the processor that the image is for.
ARG TARGETARCH
FROM scratch AS extension-amd64
COPY --chmod=0755 dist/x86_64/extensions/pyroscope-lambda-extension /opt/extensions/
FROM scratch AS extension-arm64
COPY --chmod=0755 dist/arm64/extensions/pyroscope-lambda-extension /opt/extensions/
# hadolint ignore=DL3006
FROM extension-${TARGETARCH} AS extension

FROM python:3.13-slim
WORKDIR /var/task
COPY examples/functions/python/requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt awslambdaric==4.2.2 --target .
COPY examples/functions/python/function.py ./

# All there is to it. Lambda starts every file in /opt/extensions, so nothing but extensions may lie there.
COPY --from=extension /opt/extensions/ /opt/extensions/

ENV PYROSCOPE_APPLICATION_NAME=lambda.example.python
ENTRYPOINT ["python", "-m", "awslambdaric"]
CMD ["function.handler"]
