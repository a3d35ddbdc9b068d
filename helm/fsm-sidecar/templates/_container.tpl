{{- /*
For the pod template of your own chart. Each takes the scope of this chart:

  {{- $sidecar := index .Subcharts "fsm-sidecar" }}
  metadata:
    labels: {{- include "fsm-sidecar.podLabels" $sidecar | nindent 4 }}
  spec:
    {{- with include "fsm-sidecar.initContainer" $sidecar }}
    initContainers: {{- . | nindent 4 }}
    {{- end }}
    containers:
    {{- include "fsm-sidecar.container" $sidecar | nindent 4 }}
    - name: agent
      env: {{- include "fsm-sidecar.agentEnv" $sidecar | nindent 8 }}
    volumes: {{- include "fsm-sidecar.volumes" $sidecar | nindent 4 }}

Write both of `initContainer` and `container`: only that one gives something which `sidecar.native` asks for.
*/ -}}

{{- define "fsm-sidecar.initContainer" -}}
{{- include "fsm-sidecar.check" . }}
{{- if include "fsm-sidecar.native" . }}
{{- include "fsm-sidecar.body" (dict "scope" . "native" true) }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.container" -}}
{{- include "fsm-sidecar.check" . }}
{{- if not (include "fsm-sidecar.native" .) }}
{{- include "fsm-sidecar.body" (dict "scope" . "native" false) }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.native" -}}
{{- if eq (toString .Values.sidecar.native) "auto" }}
{{- if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- else if .Values.sidecar.native }}true{{ end }}
{{- end }}

{{- define "fsm-sidecar.image" -}}
{{- $registry := (.Values.global | default dict).imageRegistry }}
{{- $repository := empty $registry | ternary .Values.image.repository (printf "%s/%s" $registry .Values.image.repository) }}
{{- with .Values.image.digest }}{{ printf "%s@%s" $repository . }}{{ else }}{{ printf "%s:%s" $repository (default .Chart.AppVersion .Values.image.tag) }}{{ end }}
{{- end }}

{{- define "fsm-sidecar.body" -}}
{{- $native := .native }}
{{- with .scope -}}
- name: fsm-sidecar
  image: {{ include "fsm-sidecar.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- if $native }}
  restartPolicy: Always
  {{- end }}
  args: [run, --config, /etc/fsm-sidecar/sidecar.yaml]
  ports:
    - name: fsm-ops
      containerPort: {{ include "fsm-sidecar.opsPort" . }}
      protocol: TCP
  {{- with .Values.sidecar.env }}
  env: {{- toYaml . | nindent 4 }}
  {{- end }}
  startupProbe: {{- include "fsm-sidecar.probe" (list "/startupz" .Values.sidecar.startupProbe) | nindent 4 }}
  livenessProbe: {{- include "fsm-sidecar.probe" (list "/livez" .Values.sidecar.livenessProbe) | nindent 4 }}
  {{- with .Values.sidecar.readinessProbe }}
  readinessProbe: {{- include "fsm-sidecar.probe" (list "/readyz" .) | nindent 4 }}
  {{- end }}
  resources: {{- toYaml .Values.sidecar.resources | nindent 4 }}
  securityContext: {{- toYaml .Values.sidecar.securityContext | nindent 4 }}
  volumeMounts:
    - name: fsm-journal
      mountPath: {{ dir (include "fsm-sidecar.journalPath" .) }}
    - name: fsm-config
      mountPath: /etc/fsm-sidecar
      readOnly: true
    {{- range .Values.webhookSecrets }}
    - name: {{ printf "fsm-secret-%s" (. | replace "." "-" | trunc 52 | trimSuffix "-") }}
      mountPath: /run/secrets/fsm-sidecar/{{ . }}
      readOnly: true
    {{- end }}
    {{- with .Values.sidecar.extraVolumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.probe" -}}
httpGet:
  path: {{ first . }}
  port: fsm-ops
{{ toYaml (last .) }}
{{- end }}

{{- define "fsm-sidecar.volumes" -}}
{{- include "fsm-sidecar.check" . -}}
- name: fsm-config
  configMap:
    name: {{ include "fsm-sidecar.configMapName" . }}
{{- if eq .Values.journal.volume "emptyDir" }}
- name: fsm-journal
  emptyDir: {{ empty .Values.journal.sizeLimit | ternary dict (dict "sizeLimit" .Values.journal.sizeLimit) | toJson }}
{{- else if eq .Values.journal.volume "claim" }}
- name: fsm-journal
  persistentVolumeClaim:
    claimName: {{ include "fsm-sidecar.claimName" . }}
{{- end }}
{{- range .Values.webhookSecrets }}
- name: {{ printf "fsm-secret-%s" (. | replace "." "-" | trunc 52 | trimSuffix "-") }}
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}

{{- /* For `volumeClaimTemplates` of a StatefulSet, with `journal.volume: template`; otherwise nothing. */ -}}
{{- define "fsm-sidecar.volumeClaimTemplate" -}}
{{- include "fsm-sidecar.check" . }}
{{- if eq .Values.journal.volume "template" -}}
- metadata:
    name: fsm-journal
  spec: {{- include "fsm-sidecar.claimSpec" . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "fsm-sidecar.claimSpec" -}}
accessModes: [{{ .Values.journal.accessMode }}]
{{- with .Values.journal.storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .Values.journal.size }}
{{- end }}

{{- /* Nothing, unless a change of the config shall restart the pod. */ -}}
{{- define "fsm-sidecar.podAnnotations" -}}
{{- include "fsm-sidecar.check" . }}
{{- if .Values.sidecar.restartOnConfigChange -}}
fsm-sidecar/config: {{ include "fsm-sidecar.config" . | sha256sum }}
{{- end }}
{{- end }}

{{- /* Where the agent finds the API: a URL, or the path of a Unix socket behind `unix:`. */ -}}
{{- define "fsm-sidecar.agentEnv" -}}
{{- include "fsm-sidecar.check" . }}
{{- $listen := default "127.0.0.1:8470" (.Values.config.api | default dict).listen -}}
- name: FSM_SIDECAR_URL
  value: {{ hasPrefix "unix:" $listen | ternary $listen (printf "http://127.0.0.1:%s" (regexFind "[0-9]+$" $listen)) | quote }}
{{- end }}

{{- /* For `ingress` of a NetworkPolicy of your own: lets Prometheus and the kubelet in, and nobody to the API. */ -}}
{{- define "fsm-sidecar.networkPolicyIngress" -}}
{{- include "fsm-sidecar.check" . -}}
- ports:
    - protocol: TCP
      port: {{ include "fsm-sidecar.opsPort" . }}
  {{- with .Values.networkPolicy.from }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
