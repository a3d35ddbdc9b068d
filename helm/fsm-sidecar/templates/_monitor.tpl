{{- define "fsm-sidecar.endpoint" -}}
- port: fsm-ops
  path: /metrics
  {{- with .Values.monitoring.interval }}
  interval: {{ . }}
  {{- end }}
  {{- with .Values.monitoring.scrapeTimeout }}
  scrapeTimeout: {{ . }}
  {{- end }}
  {{- with .Values.monitoring.relabelings }}
  relabelings: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.monitoring.metricRelabelings }}
  metricRelabelings: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "fsm-sidecar.monitorMetadata" -}}
name: {{ include "fsm-sidecar.monitorName" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "fsm-sidecar.labels" . | nindent 2 }}
  {{- with .Values.monitoring.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
