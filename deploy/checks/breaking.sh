#!/usr/bin/env bash
# The protos break no caller of the last release (the newest tag v*).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# The newest release before what is checked: on a release's own commit, the one before it.
last_release() {
  local from=HEAD
  git rev-parse --verify --quiet HEAD >/dev/null 2>&1 || return 0
  if git describe --exact-match --tags --match 'v*' HEAD >/dev/null 2>&1 &&
    git diff --quiet HEAD -- proto tools buf.yaml; then
    from=HEAD^
  fi
  git describe --tags --match 'v*' --abbrev=0 "$from" 2>/dev/null || true
}

release=$(last_release)
if [[ -z $release ]]; then
  echo 'no release (tag v*) before this one: no older protos to compare with'
  exit 0
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/old"
git archive "$release" | tar -x -C "$work/old"
.venv/bin/buf build "$work/old" -o "$work/old.binpb"
.venv/bin/buf build . -o "$work/new.binpb"
.venv/bin/buf breaking "$work/new.binpb" --against "$work/old.binpb" \
  --config '{"version": "v2", "breaking": {"use": ["FILE"], "ignore": ["buf"]}}' ||
  { echo "error: the protos break callers of $release. A breaking change is a new package (v2)." >&2
    exit 1; }
echo "the protos break no caller of $release"
