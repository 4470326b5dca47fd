# The one program, for every role: `docker build -t wonder .`
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release --package wonder

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/wonder --create-home wonder
COPY --from=build /source/target/release/wonder /usr/local/bin/wonder
USER wonder
WORKDIR /var/lib/wonder
# Where the embedded platform keeps its files; the distributed set keeps nothing here.
ENV WONDER_DATA_DIR=/var/lib/wonder WONDER_LISTEN=0.0.0.0:7420
VOLUME /var/lib/wonder
EXPOSE 7420
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 \
    CMD curl --fail --silent --output /dev/null http://127.0.0.1:7420/readyz
STOPSIGNAL SIGTERM
ENTRYPOINT ["wonder"]
CMD ["serve"]
