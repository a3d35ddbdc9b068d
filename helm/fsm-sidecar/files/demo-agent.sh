# An agent for a first try: works, rests, and now and then an old planner writes on a version that is long gone.
write() {
  curl -s -o /dev/null -X PUT "$FSM_SIDECAR_URL/v1/state$1" -H 'Content-Type: application/json' -d "$2"
}
trap 'write "" "{\"state\": \"SHUTDOWN\", \"source_module\": \"planner\"}"; exit 0' TERM
round=0
while true; do
  for state in ACTIVE ACTIVE IDLE; do
    write "" "{\"state\": \"$state\", \"source_module\": \"planner\"}"
    sleep 2 & wait $!
  done
  round=$((round + 1))
  [ $((round % 5)) -ne 0 ] || write "?enforce_version=true" '{"state": "IDLE", "version": 0, "source_module": "old-planner"}'
done
