{{- /* Rules have templates of their own in them, for Prometheus: they go through as they are, with plain replacements. */ -}}
{{- define "fsm-sidecar.rules" -}}
{{- $rules := last . }}
{{- with first . }}
{{- with .Values.alerts.runbookBaseUrl }}
{{- $rules = regexReplaceAll "(runbook_url: ['\"]?)https?://\\S*/" $rules (printf "${1}%s" .) }}
{{- end }}
{{- $rules = replace "datasourceUid: fsm-prometheus" (printf "datasourceUid: %s" .Values.alerts.grafanaDatasource) $rules }}
{{- end }}
{{- trim $rules }}
{{- end }}

{{- /* Grafana's sidecar may look into one namespace only. */ -}}
{{- define "fsm-sidecar.grafanaNamespace" -}}
{{- default .Release.Namespace .Values.dashboards.namespace }}
{{- end }}
