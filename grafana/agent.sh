#!/bin/sh
# An agent for compose.yaml: works, rests, and now and then an old planner writes on a version that is long gone.
url=http://sidecar:8470/v1/state
write() {
  curl -s -o /dev/null -X PUT "$url$1" -H 'Content-Type: application/json' -d "$2"
}
round=0
while true; do
  for state in ACTIVE ACTIVE IDLE; do
    write "" "{\"state\": \"$state\", \"source_module\": \"planner\"}"
    sleep 2
  done
  round=$((round + 1))
  [ $((round % 5)) -ne 0 ] || write "?enforce_version=true" '{"state": "IDLE", "version": 0, "source_module": "old-planner"}'
  [ $((round % 20)) -ne 0 ] || write "" '{"state": "IDLE", "version": 0, "source_module": "old-planner"}'
done
