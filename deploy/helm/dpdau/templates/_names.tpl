{{- define "dpdau.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dpdau.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dpdau.writer" -}}
{{ include "dpdau.selector" . }}
app.kubernetes.io/component: writer
{{- end -}}

{{- define "dpdau.front" -}}
{{ include "dpdau.selector" . }}
app.kubernetes.io/component: front
{{- end -}}

{{- define "dpdau.labels" -}}
{{ include "dpdau.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
