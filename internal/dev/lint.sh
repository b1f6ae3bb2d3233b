#!/bin/sh
# lint.sh VERSION: runs golangci-lint of that version over the tree, from PATH
# or .local/bin, and builds it into .local/bin where neither has it.
set -eu

version=$1
cd "$(dirname "$0")/../.."
bin=$PWD/.local/bin

is_version() {
	"$1" version 2>/dev/null | grep -q "version ${version#v} "
}

for lint in golangci-lint "$(go env GOPATH)/bin/golangci-lint" "$bin/golangci-lint"; do
	if is_version "$lint"; then
		exec "$lint" run ./...
	fi
done

echo "lint: building golangci-lint $version into .local/bin, which takes some minutes once" >&2
GOBIN=$bin go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
exec "$bin/golangci-lint" run ./...
