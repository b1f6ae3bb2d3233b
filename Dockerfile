# syntax=docker/dockerfile:1

# The worker as one static binary in an empty image: no shell, no libraries, and
# nothing to update but the binary itself.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t mythic-cache .

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.programVersion=${VERSION}" -o /out/mythic-cache ./cmd/mythic-cache

# What `make test` runs in where a machine has Docker and no servers of its own.
FROM golang:1.26.8-bookworm AS tests
RUN apt-get update \
    && printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d \
    && apt-get install --yes --no-install-recommends postgresql redis-server \
       python3-fastapi python3-sqlalchemy python3-uvicorn python3-psycopg2 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
CMD ["make", "check"]

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/mythic-cache /mythic-cache
USER 65532:65532
EXPOSE 8001
ENTRYPOINT ["/mythic-cache"]
CMD ["run"]
