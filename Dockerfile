# syntax=docker/dockerfile:1
#
# The image of `migrate`: one static program, the authorities that TLS trusts, and nothing
# else; no shell, no package manager, no user but one without rights.
#
#   docker build --tag lockstep .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag lockstep .
#
# A project's own image adds its migrations: deploy/image/Dockerfile.

# Always the builder's own platform: zig compiles C for any other.
FROM --platform=$BUILDPLATFORM rust:1.95.0-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# Debian's own updates are wanted in what is thrown away.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/build/target/static,id=lockstep-${TARGETARCH},sharing=locked \
    scripts/build-static --arch "${TARGETARCH:-$(dpkg --print-architecture)}" --to /out/migrate

FROM scratch
LABEL org.opencontainers.image.title="lockstep" \
      org.opencontainers.image.description="One migration history for Postgres and MongoDB" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
# `sslrootcert=system` and a server with a certificate of a public authority ask for these.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /build/LICENSE-APACHE /build/LICENSE-MIT /licenses/
COPY --from=build /out/migrate /migrate
# Where a project's migrate.toml and migrations/ go. Nothing is ever written here: the image
# runs with a read-only root and no writable folder at all.
WORKDIR /project
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# What starts and ends with a run has no health to ask for; `migrate serve` answers by HTTP.
HEALTHCHECK NONE
ENTRYPOINT ["/migrate"]
CMD ["--help"]
