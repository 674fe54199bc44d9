# The image of `sluice`: one binary, no shell, no package manager, uid 10001. Its root may be read-only: it writes to
# /data alone (caches and scratch files; with Kafka and S3 nothing in it is needed to recover).
#
#   docker build -t sluice .

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# librdkafka, OpenSSL, zstd and SQLite are compiled from source by their crates: the compiler, make and perl of this
# image are all that is needed
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package sluice \
    && cp target/release/sluice /sluice \
    && strip /sluice \
    && mkdir /data

FROM gcr.io/distroless/cc-debian12
COPY --from=build /sluice /usr/local/bin/sluice
COPY --from=build --chown=10001:10001 /data /data
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 7700
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["--help"]
