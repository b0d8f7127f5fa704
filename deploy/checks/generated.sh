#!/usr/bin/env bash
# The committed Python code is what the protos generate: nothing else, nothing less.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

deploy/setup/proto.sh "$fresh"
list() { (cd "$1" && find toolcrib -name '*_pb2*.py' -o -name '*_pb2.pyi' | LC_ALL=C sort); }
if ! diff <(list proto) <(list "$fresh"); then
  echo 'error: these generated files are missing (>) or left over (<)' >&2
  exit 1
fi
while read -r file; do
  diff -u "proto/$file" "$fresh/$file" || changed=1
done < <(list "$fresh")
if [[ -n ${changed:-} ]]; then
  echo 'error: generated code is out of date. Run: make proto' >&2
  exit 1
fi
