# Serves one call of shell.v1.Checksum, then ends: a handler without any SDK, in POSIX sh and busybox.
# docs/frames.md shows each byte that is read and written here.
#
# Descriptor 3 gives frames from the broker, descriptor 4 takes ours: 4 bytes of length, big-endian, then one
# protobuf message. What the request says is only ever data: it lies in files and is never a word of a command.

set -eu
umask 077
box=/bin/busybox
cd /tmp

# --- reading ---------------------------------------------------------------------------------------------
# Takes exactly $1 bytes from the broker. `dd` asks again until all are there; a `read` may get fewer.
take() {
  "$box" dd bs="$1" count=1 iflag=fullblock <&3 2>/dev/null
}

# Takes one frame into the file $1.
take_frame() {
  set -- "$1" $(take 4 | "$box" od -An -v -tu1)
  [ $# -eq 5 ] || exit 1 # the broker is gone
  take $((($2 << 24) + ($3 << 16) + ($4 << 8) + $5)) >"$1"
}

# Lists the fields of the message in the file $1, a line each: NUMBER varint VALUE, or NUMBER bytes START LENGTH.
list_fields() {
  "$box" od -An -v -tu1 "$1" | "$box" awk '
    function varint(  value, factor, byte) {
      value = 0; factor = 1
      do {
        if (at >= size) { broken = 1; return 0 }
        byte = bytes[at++]; value += (byte % 128) * factor; factor *= 128
      } while (byte >= 128)
      return value
    }
    { for (i = 1; i <= NF; i++) bytes[size++] = $i }
    END {
      while (at < size && !broken) {
        key = varint(); number = int(key / 8); kind = key % 8
        if (kind == 0) print number, "varint", varint()
        else if (kind == 1) at += 8
        else if (kind == 2) { length_ = varint(); print number, "bytes", at, length_; at += length_ }
        else if (kind == 5) at += 4
        else broken = 1
        if (at > size) broken = 1
      }
      exit broken
    }'
}

# Writes the bytes of the last field number $2 of the message in file $1 to standard output; none where it is not set.
field_bytes() {
  list_fields "$1" | "$box" awk -v number="$2" '$1 == number && $2 == "bytes" { a = $3; b = $4 } END { print a + 0, b + 0 }' | {
    read -r start length_
    "$box" tail -c +$((start + 1)) "$1" | "$box" head -c "$length_"
  }
}

# Prints the last value of the number field $2 of the message in file $1; 0 where it is not set.
field_number() {
  list_fields "$1" | "$box" awk -v number="$2" '$1 == number && $2 == "varint" { a = $3 } END { print a + 0 }'
}

# --- writing ---------------------------------------------------------------------------------------------
# Writes the one byte $1, a number.
byte() {
  printf "\\$(printf %03o "$1")"
}

# Writes $1 as a varint: 7 bits in each byte, the lowest first, 128 added where one more follows.
varint() {
  rest=$1
  while [ "$rest" -ge 128 ]; do
    byte $((rest % 128 + 128))
    rest=$((rest / 128))
  done
  byte "$rest"
}

# Writes field number $1 with the bytes of file $2.
put_bytes() {
  varint $(($1 * 8 + 2))
  varint "$("$box" wc -c <"$2")"
  "$box" cat "$2"
}

# Writes field number $1 with the number $2.
put_number() {
  varint $(($1 * 8))
  varint "$2"
}

# Sends the message in file $1 as one frame.
send_frame() {
  size=$("$box" wc -c <"$1")
  {
    byte $((size >> 24 & 255))
    byte $((size >> 16 & 255))
    byte $((size >> 8 & 255))
    byte $((size & 255))
    "$box" cat "$1"
  } >&4
}

# Sends the file $2 as field number $1 of a HandlerFrame.
send() {
  put_bytes "$1" "$2" >frame
  send_frame frame
}

# Sends a Failure with code $1 and message $2, which says that nothing happened, and ends.
fail() {
  printf %s "$1" >code
  printf %s "$2" >message
  { put_bytes 1 code; put_bytes 2 message; put_number 4 1; } >failure
  send 3 failure
  exit 0
}

# --- the tool --------------------------------------------------------------------------------------------
# Answers the request in the file `request`.
sum_text() {
  field_bytes request 1 >text
  case $(field_number request 2) in
    0 | 1) program=sha256sum ;;
    2) program=sha512sum ;;
    *) fail ALGORITHM_UNKNOWN "This tool knows SHA-256 and SHA-512." ;;
  esac
  sum=$("$box" "$program" <text)
  printf %s "${sum%% *}" >checksum
  size=$("$box" wc -c <text)
  put_bytes 1 checksum >response
  # In proto3 a number that is 0 is left out.
  [ "$size" -eq 0 ] || put_number 2 "$size" >>response
}

: >nothing
send 6 nothing # Loaded: all is ready, so this sandbox can be kept warm
take_frame broker_frame
field_bytes broker_frame 1 >start
[ "$(field_number start 1)" = 1 ] || fail PROTOCOL_UNKNOWN "This handler speaks version 1 only."
case $(field_bytes start 3) in
  shell.v1.Checksum/SumText) ;;
  *) fail METHOD_UNKNOWN "This handler has SumText only." ;;
esac
field_bytes start 4 >request
sum_text
put_bytes 1 response >result
send 2 result
