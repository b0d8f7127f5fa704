# What the set-up scripts say, and how they end. Sourced, not run.

say() { printf '==> %s\n' "$*"; }

fail() {
  printf 'error: %s\n' "$1" >&2
  shift
  (($#)) && printf '       %s\n' "$@" >&2
  exit 1
}

# True when TOOLCRIB_WITHOUT, a list with commas, names $1.
is_left_out() {
  local names=${TOOLCRIB_WITHOUT:-}
  [[ ,${names// /}, == *",$1,"* ]]
}
