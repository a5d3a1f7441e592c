# The sidecar's image: a Python without shell or package manager, and the sidecar in an environment of its own.
#
# Both bases are build arguments. They must have the same minor version of Python, 3.11 or newer, and nothing else of
# theirs is used: the builder needs pip and coreutils, the final image only the interpreter at RUNTIME_PYTHON.
# The final base's tag moves with Debian's security updates. To build the same image twice, give both by digest:
#   docker build --build-arg FINAL_IMAGE=gcr.io/distroless/python3-debian13@sha256:... -t oom-heap-dumper:0.1.0 .
ARG BUILDER_IMAGE=docker.io/library/python:3.13.13-slim-trixie
ARG FINAL_IMAGE=gcr.io/distroless/python3-debian13:nonroot

FROM ${BUILDER_IMAGE} AS build
# Where the final image has its interpreter.
ARG RUNTIME_PYTHON=/usr/bin/python3
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_COMPILE=1
WORKDIR /src

# Dependencies first: they change less often than the source. --only-binary: nothing is compiled or run from an sdist.
COPY requirements/ requirements/
RUN python3 -m venv --without-pip /opt/oom-heap-dumper \
 && python3 -m pip --python /opt/oom-heap-dumper/bin/python3 install \
      --only-binary :all: --require-hashes -r requirements/runtime.txt

# The build backend, at the locked versions, in an environment that stays behind.
RUN python3 -m venv --without-pip /tmp/build-tools \
 && python3 -m pip --python /tmp/build-tools/bin/python3 install \
      --only-binary :all: --require-hashes -r requirements/build.txt

COPY LICENSE README.md pyproject.toml ./
COPY sidecar/ sidecar/
RUN python3 -m pip --python /tmp/build-tools/bin/python3 wheel \
      --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
 && python3 -m pip --python /opt/oom-heap-dumper/bin/python3 install --no-deps --no-index /tmp/wheels/*.whl

# botocore describes 400 services. The sidecar calls S3; the others are how botocore gets credentials: STS for IRSA and
# assumed roles, the rest for engineers who run `list` and `get` with AWS single sign-on. (Pod Identity is plain HTTP.)
# Then leave out the programs that dependencies bring along, make the environment belong to the interpreter of the final
# image, and lay out what only its user may write.
RUN cd /opt/oom-heap-dumper \
 && find lib/python3*/site-packages/botocore/data -mindepth 1 -maxdepth 1 -type d \
      ! -name s3 ! -name sts ! -name sso ! -name sso-oidc ! -name signin -exec rm -r {} + \
 && rm -r lib/python3*/site-packages/boto3/examples \
 && find bin -mindepth 1 ! -name oom-heap-dumper -delete \
 && ln -s "${RUNTIME_PYTHON}" bin/python3 \
 && ln -s python3 bin/python \
 && printf 'home = %s\ninclude-system-site-packages = false\n' "${RUNTIME_PYTHON%/*}" >pyvenv.cfg \
 && install -d -o 65532 -g 65532 -m 1777 /rootfs/spool/oom-heap-dumper /rootfs/lib/oom-heap-dumper

FROM ${FINAL_IMAGE}
ARG FINAL_IMAGE
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="oom-heap-dumper" \
      org.opencontainers.image.description="A sidecar that saves a Go program's heap profile before the OOM killer takes the program." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${FINAL_IMAGE}"
# PYTHONDONTWRITEBYTECODE: the root file system is read-only where this runs.
ENV PATH=/opt/oom-heap-dumper/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

COPY --from=build /opt/oom-heap-dumper/ /opt/oom-heap-dumper/
COPY --from=build --chown=65532:65532 /rootfs/spool/ /var/spool/
COPY --from=build --chown=65532:65532 /rootfs/lib/ /var/lib/

# Slim and distroless images carry the standard library without its bytecode. On a read-only file system each start
# would compile it anew, and the sidecar starts a process for each upload and each probe: for 11 MB of image,
# `--help` takes 0.04 s of CPU instead of 0.14 s, and loading an S3 client 0.2 s instead of 0.55 s.
USER 0:0
RUN ["python3", "-c", "import compileall, py_compile, sysconfig\nfor tree in sysconfig.get_path('stdlib'), sysconfig.get_path('purelib'):\n    compileall.compile_dir(tree, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"]

# Numeric, so that Kubernetes can tell that it isn't root. Distroless images know it as "nonroot".
USER 65532:65532
# Ends the build if the two bases don't fit together.
RUN ["oom-heap-dumper", "--version"]

# Kubernetes ignores this and has a liveness probe of its own. The start allows for a tight CPU limit.
HEALTHCHECK --interval=30s --timeout=10s --start-period=15s CMD ["oom-heap-dumper", "health"]
ENTRYPOINT ["oom-heap-dumper"]
CMD ["watch"]
