#!/usr/bin/env bash
# Write the Python code of proto/toolcrib/**/*.proto: `proto.sh [FOLDER]`.
#
# The folder is proto/ itself when none is given. The generator is pinned to an
# old release on purpose: generated code refuses a runtime older than itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
out=${1:-proto}

mapfile -t protos < <(cd proto && find toolcrib -name '*.proto' | LC_ALL=C sort)
.venv/bin/python -m grpc_tools.protoc -I proto \
  --python_out="$out" --pyi_out="$out" --grpc_python_out="$out" "${protos[@]}"

# Without a service the generator writes a file of imports; and a proto that is
# gone leaves its code behind.
while read -r generated; do
  proto=proto/${generated#"$out"/}
  proto=${proto%_pb2*}.proto
  if [[ ! -e $proto ]] || { [[ $generated == *_pb2_grpc.py ]] && ! grep -q '^service ' "$proto"; }; then
    rm "$generated"
  fi
done < <(find "$out"/toolcrib -name '*_pb2.py' -o -name '*_pb2.pyi' -o -name '*_pb2_grpc.py')
