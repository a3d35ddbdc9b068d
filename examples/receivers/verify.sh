#!/bin/sh
# Verifies one delivery with openssl: verify.sh ID TIMESTAMP SIGNATURE < body, with the secret in HOOK_SECRET.
# ID, TIMESTAMP and SIGNATURE are the headers webhook-id, webhook-timestamp and webhook-signature.
set -eu
key=$(printf %s "${HOOK_SECRET#whsec_}" | openssl base64 -d -A | od -An -tx1 | tr -d ' \n')
wanted=$({ printf '%s.%s.' "$1" "$2"; cat; } | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
for each in $3; do
  if [ "$each" = "v1,$wanted" ]; then echo genuine; exit 0; fi
done
echo "not genuine" >&2
exit 1
