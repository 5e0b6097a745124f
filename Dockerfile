# SPDX-License-Identifier: Apache-2.0
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=devel
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /plumbline ./cmd/plumbline \
 && mkdir -m 0700 /state

# git serves clones and fetches of the hosted repositories (upload-pack); nothing else of the system is used.
FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends git ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 65532 plumbline \
 && useradd --uid 65532 --gid plumbline --home-dir /var/lib/plumbline --shell /usr/sbin/nologin plumbline
COPY --from=build /plumbline /usr/local/bin/plumbline
COPY --from=build --chown=65532:65532 /state /var/lib/plumbline
USER 65532:65532
ENV STATE_DIRECTORY=/var/lib/plumbline
VOLUME /var/lib/plumbline
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/plumbline"]
CMD ["serve"]
