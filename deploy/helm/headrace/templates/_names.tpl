{{/* The start of all names: at most 25 characters, so that the name of a worker's pod fits into a host name (63). */}}
{{- define "headrace.fullname" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
  {{- $chart := default .Chart.Name .Values.nameOverride -}}
  {{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
  {{- $name = replace "." "-" $name -}}
  {{- if regexMatch "^[0-9]" $name -}}{{- $name = printf "r%s" $name -}}{{- end -}}
  {{- if gt (len $name) 25 -}}
    {{- $name = printf "%s-%s" (trunc 18 $name | trimSuffix "-") (sha256sum $name | trunc 6) -}}
  {{- end -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* The labels that select pods. They never change: a Deployment refuses another selector. The name
     is that of the chart, or its alias where another chart contains it twice. Call with (list $ NAME). */}}
{{- define "headrace.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name | quote }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 | quote }}
{{- with slice . 2 }}
headrace/class: {{ first . | quote }}
{{- end }}
{{- end -}}

{{/* The labels of a pod: no versions, which would replace all pods at each upgrade. Call as headrace.selector. */}}
{{- define "headrace.podLabels" -}}
{{ include "headrace.selector" . }}
{{- with (index . 0).Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels of an object. Call with (list $ COMPONENT) or (list $ "worker" CLASS). */}}
{{- define "headrace.labels" -}}
{{- $root := index . 0 -}}
{{ include "headrace.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | quote }}
{{- with $root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The metadata of an object. Call with (list $ SUFFIX COMPONENT [CLASS]). */}}
{{- define "headrace.metadata" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s-%s" (include "headrace.fullname" $root) (index . 1) | trimSuffix "-" }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "headrace.labels" (concat (list $root) (slice . 2)) | nindent 2 }}
{{- with $root.Values.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The metadata of an object with labels that somebody selects. Call with (list $ SUFFIX LABELS). */}}
{{- define "headrace.monitoring.metadata" -}}
{{- $root := index . 0 -}}
{{- $values := mergeOverwrite (deepCopy $root.Values.labels) (index . 2) -}}
{{- include "headrace.metadata" (list (dict "Values" (merge (dict "labels" $values) $root.Values) "Release" $root.Release "Chart" $root.Chart) (index . 1) (index . 1)) -}}
{{- end -}}
