# syntax=docker/dockerfile:1
# Two images from one build: `docker build --target media-server .` and `--target mediaservice-operator .`.
# Neither needs a shell or a package: the programs bring their certificates and allocate for themselves.
# `cargo xtask image` makes the same final file lists without a daemon.

FROM docker.io/library/rust:1.95-bookworm AS build
# aws-lc-sys and jemalloc are compiled from their own sources.
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p operator \
    && cargo build --locked --release -p media-server --no-default-features \
    && strip --strip-debug target/release/operator \
    && strip --strip-debug target/release/media-server

FROM gcr.io/distroless/cc-debian12:nonroot AS mediaservice-operator
COPY --from=build /src/target/release/operator /usr/local/bin/operator
COPY --from=build /src/LICENSE /usr/share/doc/mediaservice/LICENSE
USER 65532:65532
EXPOSE 8080/tcp
ENTRYPOINT ["/usr/local/bin/operator"]

FROM gcr.io/distroless/cc-debian12:nonroot AS media-server
COPY --from=build /src/target/release/media-server /usr/local/bin/media-server
COPY --from=build /src/LICENSE /usr/share/doc/mediaservice/LICENSE
USER 65532:65532
EXPOSE 8080/tcp 9090/tcp 8443/udp 8443/tcp
ENTRYPOINT ["/usr/local/bin/media-server"]
