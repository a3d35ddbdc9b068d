{{- /* The sidecar's file. Helm reads values as YAML 1.1, where the key `on` and the word `off` mean true and false: they become what was written. */ -}}
{{- define "fsm-sidecar.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $subscriber := $config.subscribers }}
{{- if hasKey $subscriber "true" }}
{{- $_ := set $subscriber "on" (get $subscriber "true") }}
{{- $_ := unset $subscriber "true" }}
{{- end }}
{{- end }}
{{- if kindIs "bool" ($config.fsm | default dict).enforcement }}
{{- $_ := set $config.fsm "enforcement" "off" }}
{{- end }}
{{- include "fsm-sidecar.tree" $config | trim }}
{{- end }}

{{- /* Not toYaml: it breaks long lines, and a value with a line break in it is refused by the sidecar. */ -}}
{{- define "fsm-sidecar.tree" -}}
{{- range $key, $value := . }}
{{ $key }}:
{{- if and (kindIs "map" $value) $value }}
{{- include "fsm-sidecar.tree" $value | trim | nindent 2 }}
{{- else if and (kindIs "slice" $value) (kindIs "map" (first $value)) }}
{{- range $value }}
  - {{ toRawJson . }}
{{- end }}
{{- else }} {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.opsListen" -}}
{{- default "0.0.0.0:8471" (.Values.config.ops | default dict).listen }}
{{- end }}

{{- define "fsm-sidecar.opsPort" -}}
{{- regexFind "[0-9]+$" (include "fsm-sidecar.opsListen" .) }}
{{- end }}

{{- define "fsm-sidecar.journalPath" -}}
{{- default "/var/lib/fsm-sidecar/journal.db" (.Values.config.journal | default dict).path }}
{{- end }}
