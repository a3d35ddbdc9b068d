{{- /* What the schema cannot say. Every entrance comes by here, so that a wrong scope or value ends loudly. */ -}}

{{- define "fsm-sidecar.check" -}}
{{- include "fsm-sidecar.checkScope" . }}
{{- include "fsm-sidecar.checkGrace" . }}
{{- include "fsm-sidecar.checkConfig" . }}
{{- include "fsm-sidecar.checkSecrets" . }}
{{- end }}

{{- /* A parent's scope has no files of this chart, and would silently give half of everything. */ -}}
{{- define "fsm-sidecar.checkScope" -}}
{{- $own := false }}
{{- if kindIs "map" . }}{{ if hasKey . "Files" }}{{ $own = .Files.Get "files/demo-agent.sh" }}{{ end }}{{ end }}
{{- if not $own }}
{{- fail "fsm-sidecar: its templates need the scope of its own chart: include \"fsm-sidecar.container\" (index .Subcharts \"fsm-sidecar\")" }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.checkGrace" -}}
{{- $shutdown := .Values.config.shutdown | default dict }}
{{- $drain := $shutdown.drain_delay | default "2s" }}
{{- $flush := $shutdown.flush_timeout | default "5s" }}
{{- $grace := $shutdown.grace_period | default "30s" }}
{{- $seconds := include "fsm-sidecar.seconds" $grace | float64 }}
{{- $needed := addf (include "fsm-sidecar.seconds" $drain | float64) (include "fsm-sidecar.seconds" $flush | float64) 5 }}
{{- if ge $needed $seconds }}
{{- fail (printf "fsm-sidecar: config.shutdown.grace_period (%s) must be more than drain_delay (%s) + flush_timeout (%s) + 5s for open requests" $grace $drain $flush) }}
{{- end }}
{{- if gt $seconds (float64 .Values.terminationGracePeriodSeconds) }}
{{- fail (printf "fsm-sidecar: config.shutdown.grace_period (%s) is more than terminationGracePeriodSeconds (%v): the pod would be killed before the sidecar is done" $grace .Values.terminationGracePeriodSeconds) }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.seconds" -}}
{{- $number := regexFind "^[0-9.]+" . | float64 }}
{{- mulf $number (get (dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0) (regexFind "[a-z]+$" .)) }}
{{- end }}

{{- define "fsm-sidecar.checkConfig" -}}
{{- $config := .Values.config }}
{{- if regexMatch "^(127\\.|localhost:|\\[::1\\]:|unix:)" (include "fsm-sidecar.opsListen" .) }}
{{- fail "fsm-sidecar: config.ops.listen must be reachable from outside the pod, for the kubelet's probes and Prometheus; write \"0.0.0.0:8471\"" }}
{{- end }}
{{- if not (isAbs (include "fsm-sidecar.journalPath" .)) }}
{{- fail "fsm-sidecar: config.journal.path must begin with /: its folder is where the journal's volume is mounted" }}
{{- end }}
{{- if has (dir (include "fsm-sidecar.journalPath" .)) (list "/" "/etc/fsm-sidecar") }}
{{- fail "fsm-sidecar: config.journal.path needs a folder of its own, such as /var/lib/fsm-sidecar/journal.db" }}
{{- end }}
{{- $fsm := $config.fsm | default dict }}
{{- $states := $fsm.states | default (list "UNSPECIFIED" "BOOTING" "IDLE" "ACTIVE" "ERROR_STATE" "SHUTDOWN") }}
{{- range $from, $targets := $fsm.transitions }}
{{- range $state := prepend $targets $from }}
{{- if not (has $state $states) }}
{{- fail (printf "fsm-sidecar: config.fsm.transitions: %q is not one of fsm.states; put names such as ON, OFF, YES, NO, Y and N in quotes, also before a colon" $state) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.checkSecrets" -}}
{{- $mounted := .Values.webhookSecrets }}
{{- range $subscriber := .Values.config.subscribers }}
{{- $file := $subscriber.secret_file | default "" }}
{{- if hasPrefix "/run/secrets/fsm-sidecar/" $file }}
{{- $secret := index (splitList "/" $file) 4 }}
{{- if not (has $secret $mounted) }}
{{- fail (printf "fsm-sidecar: config.subscribers: the secret_file of %s is in the Secret %s; add it to webhookSecrets" $subscriber.id $secret) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $token := (.Values.config.api | default dict).tokens }}
{{- if hasPrefix "/run/secrets/fsm-sidecar/" $token.file }}
{{- $secret := index (splitList "/" $token.file) 4 }}
{{- if not (has $secret $mounted) }}
{{- fail (printf "fsm-sidecar: config.api.tokens: the file of %s is in the Secret %s; add it to webhookSecrets" $token.name $secret) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
