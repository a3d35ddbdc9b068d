# The sidecar as an image. `make image` builds it, `make image-test` proves it, docs/image.md says what is in it and how to run it.
# BASE: any image with Python 3.11 or later, its venv module and glibc; pin it by its digest for a release.
ARG BASE=docker.io/library/python:3.12-slim

FROM ${BASE} AS build
WORKDIR /src
# pip stays behind in /tools: what is copied from here has no installer.
RUN python -m venv /tools && python -m venv --without-pip /opt/fsm-sidecar
COPY requirements.lock requirements-build.lock ./
RUN /tools/bin/pip install --no-cache-dir --require-hashes --only-binary=:all: -r requirements-build.lock \
 && /tools/bin/pip --python /opt/fsm-sidecar/bin/python install --no-cache-dir --no-compile \
      --require-hashes --only-binary=:all: -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
RUN /tools/bin/pip wheel --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /wheel . \
 && /tools/bin/pip --python /opt/fsm-sidecar/bin/python install --no-cache-dir --no-compile --no-index --no-deps /wheel/*.whl
# The bytecode of all that a running sidecar and HEALTHCHECK import, also of Python's own modules, for which slim images have
# none: without it every start would compile them anew, as nothing can be written there later. It is held against the source by
# its hash, because not every builder keeps the times of files.
RUN PYTHONPYCACHEPREFIX=/tools/bytecode \
      /opt/fsm-sidecar/bin/python -P -c 'import sidecar.cli, sidecar.service, uvloop, http.client, encodings.idna, encodings.utf_8_sig' \
 && find /tools/bytecode -name '*.pyc' -printf '/%P\n' > /tools/imported && sed -i 's/\.cpython-[0-9]*\.pyc$/.py/' /tools/imported \
 && PYTHONPYCACHEPREFIX=/opt/fsm-sidecar/bytecode python -m compileall -q --invalidation-mode checked-hash -i /tools/imported \
 && mkdir /journal

FROM ${BASE}
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="fsm-sidecar" \
      org.opencontainers.image.description="The single source of truth of an agent's finite-state-machine state" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/fsm-sidecar /opt/fsm-sidecar
COPY config/container.yaml /etc/fsm-sidecar/sidecar.yaml
# No VOLUME on purpose: it would put an unnamed one where a mount was forgotten, and lose the journal with the container.
# Without it a read-only container without its volume does not start, and says why.
COPY --from=build --chown=65532:65532 /journal /var/lib/fsm-sidecar
ENV PATH=/opt/fsm-sidecar/bin:$PATH \
    PYTHONPYCACHEPREFIX=/opt/fsm-sidecar/bytecode \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
WORKDIR /var/lib/fsm-sidecar
EXPOSE 8471
STOPSIGNAL SIGTERM
# For Docker alone; the kubelet asks by HTTP. Not /readyz: what is unready for a while must not be restarted.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8471, timeout=3); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["fsm-sidecar"]
CMD ["run", "--config", "/etc/fsm-sidecar/sidecar.yaml"]
