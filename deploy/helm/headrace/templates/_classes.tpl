{{/* A class of workers with its defaults, as JSON. Call with (list $ CLASS). */}}
{{- define "headrace.class" -}}
{{- $root := index . 0 -}}
{{- $class := default dict (get $root.Values.workers (index . 1)) -}}
{{- $class = mergeOverwrite (deepCopy $root.Values.workerDefaults) (deepCopy $class) -}}
{{- $image := deepCopy $root.Values.image -}}
{{- if or $class.image.tag (and $class.image.repository (not $class.image.digest)) -}}{{- $_ := set $image "digest" "" -}}{{- end -}}
{{- $_ := set $class "image" (mergeOverwrite $image $class.image) -}}
{{- toJson $class -}}
{{- end -}}

{{/* Refuse what the schema cannot see: values that do not go together. */}}
{{- define "headrace.check" -}}
{{- if and .Values.models.url .Values.models.claim -}}
  {{- fail "models.url and models.claim are both set: the store is at a URL or on a volume" -}}
{{- end -}}
{{- if not (or .Values.models.url .Values.models.claim) -}}
  {{- fail "models.url and models.claim are both empty: set the URL of the model store, or the claim of its volume" -}}
{{- end -}}
{{- if not .Values.workers -}}
  {{- fail "workers is empty: name a class of workers, such as default" -}}
{{- end -}}
{{- range $name, $_ := .Values.workers -}}
  {{- $class := include "headrace.class" (list $ $name) | fromJson -}}
  {{- $scale := $class.scale -}}
  {{- if and (ne $scale.by "none") (gt ($scale.min | int) ($scale.max | int)) -}}
    {{- fail (printf "workers.%s.scale: min (%d) is above max (%d)" $name ($scale.min | int) ($scale.max | int)) -}}
  {{- end -}}
  {{- if and (eq $scale.by "hpa") (lt ($scale.min | int) 1) -}}
    {{- fail (printf "workers.%s.scale: by hpa needs a min of at least 1; only keda scales to 0" $name) -}}
  {{- end -}}
  {{- if and (ne $scale.by "none") (not $.Values.exporter.enabled) -}}
    {{- fail (printf "workers.%s.scale: by %s needs the exporter, which counts the jobs: set exporter.enabled" $name $scale.by) -}}
  {{- end -}}
  {{- if ge (include "headrace.bytes" $class.disk | int64) (include "headrace.bytes" $class.memory | int64) -}}
    {{- fail (printf "workers.%s: disk (%s) is in memory and counts as memory (%s): it must be less" $name $class.disk $class.memory) -}}
  {{- end -}}
  {{- if and $class.trust.requireSignature (not $class.trust.keys.configMap) -}}
    {{- fail (printf "workers.%s.trust: requireSignature needs keys, a configMap with the files of trusted keys" $name) -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* Bytes that a pool process may use: its share of the memory without the disk, less a tenth for the main process. */}}
{{- define "headrace.memoryLimit" -}}
{{- $memory := include "headrace.bytes" .memory | int64 -}}
{{- $disk := include "headrace.bytes" .disk | int64 -}}
{{- divf (mulf (sub $memory $disk) 0.9) .concurrency | floor | int64 -}}
{{- end -}}

{{/* Settings of what a class trusts. */}}
{{- define "headrace.trust.env" -}}
{{- if .pickle }}
- name: HEADRACE_TRUST_PICKLE
  value: "true"
{{- end }}
{{- with .modules }}
- name: HEADRACE_TRUST_MODULES
  value: {{ join "," . | quote }}
{{- end }}
{{- if .keys.configMap }}
{{- $files := list }}
{{- range .keys.files }}{{ $files = append $files (printf "/etc/headrace/keys/%s" .) }}{{ end }}
- name: HEADRACE_MODEL_KEYS
  value: {{ join "," $files | quote }}
{{- end }}
{{- if .requireSignature }}
- name: HEADRACE_REQUIRE_SIGNATURE
  value: "true"
{{- end }}
{{- end -}}

{{/* How fast a class shrinks: one worker a minute, once its backlog has been low for the cooldown. */}}
{{- define "headrace.behavior" -}}
scaleDown:
  stabilizationWindowSeconds: {{ .cooldown | int }}
  policies:
    - type: Pods
      value: 1
      periodSeconds: 60
{{- end -}}
