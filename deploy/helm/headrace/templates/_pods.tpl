{{/* The image of a container: a digest wins over a tag. Call with (list $ IMAGE), where IMAGE lacks what the chart's has. */}}
{{- define "headrace.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $image.repository $image.digest | quote }}
{{- else -}}
{{ printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) | quote }}
{{- end -}}
{{- end -}}

{{/* Fields of every pod: Pod Security "restricted", no token of the API server. */}}
{{- define "headrace.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* Fields of every container. */}}
{{- define "headrace.container" -}}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Requests are the limits: what a container may use is there for it. Call with (dict "cpu" CPU "memory" MEMORY). */}}
{{- define "headrace.resources" -}}
resources:
  requests:
    cpu: {{ .cpu | toString | quote }}
    memory: {{ .memory | quote }}
  limits:
    cpu: {{ .cpu | toString | quote }}
    memory: {{ .memory | quote }}
{{- end -}}

{{/* The files of /run/secrets: the URL of Redis of one user, the CA, and the endpoints of notifiers. Call with
     (list $ USER). */}}
{{- define "headrace.credentials" -}}
{{- $redis := (index . 0).Values.redis -}}
projected:
  defaultMode: 0444
  sources:
    - secret:
        name: {{ $redis.urlSecret | quote }}
        items:
          - key: {{ printf "%s.url" (index . 1) }}
            path: redis_url
          {{- if eq (index . 1) "flower" }}
          - key: flower.login
            path: login
          {{- end }}
    {{- if eq (index . 1) "notifier" }}
    {{- $notifier := (index . 0).Values.notifier }}
    - secret:
        name: {{ $notifier.endpointsSecret | quote }}
        items:
          - key: {{ $notifier.endpointsKey | quote }}
            path: notify
    {{- end }}
    {{- with $redis.caSecret }}
    - secret:
        name: {{ . | quote }}
        items:
          - key: {{ $redis.caKey | quote }}
            path: ca
    {{- end }}
{{- end -}}

{{/* A checksum of what a pod reads from the Secrets, which changes its template; none where no server answers. */}}
{{- define "headrace.checksum" -}}
{{- $root := index . 0 -}}
{{- $redis := $root.Values.redis -}}
{{- $keys := list (printf "%s.url" (index . 1)) -}}
{{- if eq (index . 1) "flower" -}}{{- $keys = append $keys "flower.login" -}}{{- end -}}
{{- $values := list -}}
{{- $secret := default dict (lookup "v1" "Secret" $root.Release.Namespace $redis.urlSecret).data -}}
{{- range $keys -}}{{- $values = append $values (get $secret .) -}}{{- end -}}
{{- if $redis.caSecret -}}
  {{- $secret = default dict (lookup "v1" "Secret" $root.Release.Namespace $redis.caSecret).data -}}
  {{- $values = append $values (get $secret $redis.caKey) -}}
{{- end -}}
{{- if join "" $values -}}
checksum/secrets: {{ join "," $values | sha256sum }}
{{- end -}}
{{- end -}}

{{/* Where Redis is: environment variables of every container. */}}
{{- define "headrace.redis.env" -}}
- name: HEADRACE_REDIS_URL_FILE
  value: /run/secrets/redis_url
{{- with .Values.redis.keyPrefix }}
- name: HEADRACE_KEY_PREFIX
  value: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* Environment variables of settings. Call with (dict "settings" {NAME: value} "secrets" {NAME: {secret, key}}). */}}
{{- define "headrace.settings" -}}
{{- range $name, $value := .settings }}
- name: {{ $name }}
  value: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- range $name, $reference := .secrets }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $reference.secret | quote }}
      key: {{ $reference.key | quote }}
{{- end }}
{{- end -}}

{{/* Where the models are: environment variables, mounts and volumes of a pod that reads the store. */}}
{{- define "headrace.models.env" -}}
{{- $models := .Values.models -}}
{{- if $models.url -}}
- name: HEADRACE_MODELS
  value: {{ $models.url | quote }}
- name: HEADRACE_MODEL_CACHE
  value: /var/cache/headrace
- name: HEADRACE_MODEL_CACHE_BYTES
  value: {{ include "headrace.bytes" $models.cacheSize | float64 | mulf 0.9 | floor | int64 | quote }}
{{- range $name, $value := $models.settings }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- with $models.credentialsSecret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $models.credentialsSecret | quote }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- else -}}
- name: HEADRACE_MODELS
  value: /models
{{- end -}}
{{- end -}}

{{- define "headrace.models.mounts" -}}
{{- if .Values.models.url -}}
- name: model-cache
  mountPath: /var/cache/headrace
{{- else if .Values.models.claim -}}
- name: models
  mountPath: /models
  readOnly: true
{{- end -}}
{{- end -}}

{{- define "headrace.models.volumes" -}}
{{- if .Values.models.url -}}
- name: model-cache
  emptyDir:
    sizeLimit: {{ .Values.models.cacheSize | quote }}
{{- else if .Values.models.claim -}}
- name: models
  persistentVolumeClaim:
    claimName: {{ .Values.models.claim | quote }}
    readOnly: true
{{- end -}}
{{- end -}}

{{/* A quantity of memory in bytes. */}}
{{- define "headrace.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexReplaceAll "^[0-9.]+" . "" -}}
{{- mulf (trimSuffix $unit . | float64) (get $units $unit | float64) | floor | int64 -}}
{{- end -}}

{{/* The metadata of a task that helm runs, and when it is deleted. Call with (list $ NAME HOOKS DELETION). */}}
{{- define "headrace.hook" -}}
{{- $root := index . 0 -}}
name: {{ include "headrace.fullname" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace | quote }}
labels:
  {{- include "headrace.labels" (list $root "task") | nindent 2 }}
annotations:
  {{- $hook := dict "helm.sh/hook" (index . 2) "helm.sh/hook-delete-policy" (index . 3) }}
  {{- toYaml (merge $hook $root.Values.annotations) | nindent 2 }}
{{- end -}}

{{/* How often a task is tried. */}}
{{- define "headrace.job" -}}
backoffLimit: 3
activeDeadlineSeconds: 300
{{- end -}}

{{/* A rule for a destination: its ports, and where it is. */}}
{{- define "headrace.egress" -}}
- ports:
    {{- range .ports }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
