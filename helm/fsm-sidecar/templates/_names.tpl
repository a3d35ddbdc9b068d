{{- /* Names and labels. A scope is this chart's own: `.` here, `(index .Subcharts "fsm-sidecar")` in a parent chart. */ -}}

{{- define "fsm-sidecar.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 53 | trimSuffix "-" }}
{{- end }}

{{- define "fsm-sidecar.fullname" -}}
{{- $name := include "fsm-sidecar.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 53 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 53 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- /* Alerts find scrape targets by their job, and the job is named after this: it always has fsm-sidecar in it. */ -}}
{{- define "fsm-sidecar.monitorName" -}}
{{- $fullname := include "fsm-sidecar.fullname" . }}
{{- contains "fsm-sidecar" $fullname | ternary $fullname (printf "%s-fsm-sidecar" (trunc 51 $fullname)) }}
{{- end }}

{{- define "fsm-sidecar.labels" -}}
app.kubernetes.io/name: {{ include "fsm-sidecar.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* What is on a pod with a sidecar: how monitors find it. They are not the app's own labels, which belong to the pod's owner. */ -}}
{{- define "fsm-sidecar.podLabels" -}}
{{- include "fsm-sidecar.check" . -}}
fsm-sidecar/scrape: "true"
fsm-sidecar/release: {{ include "fsm-sidecar.release" . }}
{{- end }}

{{- define "fsm-sidecar.release" -}}
{{- include "fsm-sidecar.fullname" . }}
{{- end }}

{{- define "fsm-sidecar.configMapName" -}}
{{- default (printf "%s-config" (include "fsm-sidecar.fullname" .)) .Values.existingConfigMap }}
{{- end }}

{{- define "fsm-sidecar.claimName" -}}
{{- default (printf "%s-journal" (include "fsm-sidecar.fullname" .)) .Values.journal.existingClaim }}
{{- end }}

{{- /* "true" where this release has pods with a sidecar: the demo's, or those of the chart that this one is a part of. */ -}}
{{- define "fsm-sidecar.hasPods" -}}
{{- if or .Values.demo.enabled (not .Chart.IsRoot) }}true{{ end }}
{{- end }}

{{- define "fsm-sidecar.monitoring" -}}
{{- if eq (toString .Values.monitoring.enabled) "auto" }}{{ if .Chart.IsRoot }}true{{ end }}
{{- else if .Values.monitoring.enabled }}true{{ end }}
{{- end }}

{{- define "fsm-sidecar.operator" -}}
{{- if include "fsm-sidecar.monitoring" . }}
{{- if eq (toString .Values.monitoring.operator) "auto" }}{{ if .Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}true{{ end }}
{{- else if .Values.monitoring.operator }}true{{ end }}
{{- end }}
{{- end }}
