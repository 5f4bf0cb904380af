{{/* Names, labels and image. */}}

{{- define "watchword.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters, so that the longest component and a suffix still fit into 63. */}}
{{- define "watchword.fullname" -}}
{{- $name := include "watchword.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* Of a Deployment; never to be changed, since a Deployment's selector cannot be.
     Takes root, and component where there is one; so do the labels. */}}
{{- define "watchword.selector" -}}
app.kubernetes.io/name: {{ include "watchword.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "watchword.labels" -}}
{{ include "watchword.selector" . }}
app.kubernetes.io/part-of: watchword
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end -}}

{{- define "watchword.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Deployments: component, the roles it runs, its key in the values, whether it has an HTTP
     listener, and the channel it delivers by. As JSON: {"workloads": […]}. */}}
{{- define "watchword.workloads" -}}
{{- $config := .Values.config -}}
{{- $all := list -}}
{{- if .Values.api.enabled -}}
{{- $all = append $all (dict "component" "api" "roles" (list "issuer" "verifier") "values" "api" "http" true "channel" "") -}}
{{- else -}}
{{- $all = append $all (dict "component" "issuer" "roles" (list "issuer") "values" "issuer" "http" true "channel" "") -}}
{{- $all = append $all (dict "component" "verifier" "roles" (list "verifier") "values" "verifier" "http" true "channel" "") -}}
{{- end -}}
{{- if $config.sms -}}
{{- /* Only with a public URL does the program take receipts. */ -}}
{{- $all = append $all (dict "component" "sms-worker" "roles" (list "sms-worker") "values" "smsWorker" "http" (not (empty $config.sms.public_url)) "channel" "sms") -}}
{{- end -}}
{{- if $config.email -}}
{{- $all = append $all (dict "component" "email-worker" "roles" (list "email-worker") "values" "emailWorker" "http" false "channel" "email") -}}
{{- end -}}
{{- dict "workloads" $all | toJson -}}
{{- end -}}

{{/* The peers that every workload has, and the broker where queues are used, as JSON. Takes a workload. */}}
{{- define "watchword.peers" -}}
{{- ternary (list "redis") (list "rabbitmq" "redis") (eq (join "," .roles) "verifier") | toJson -}}
{{- end -}}

{{/* "true" if the workload's replicas are somebody else's business. Takes the role's autoscaling. */}}
{{- define "watchword.scaled" -}}
{{- if or .hpa.enabled (and .keda .keda.enabled) -}}true{{- end -}}
{{- end -}}

{{/* The most replicas of a workload: maxReplicas, and of a worker no more than its providers bear.
     Takes component, autoscaling, worker. */}}
{{- define "watchword.maxReplicas" -}}
{{- $scaling := .autoscaling -}}
{{- $most := int $scaling.maxReplicas -}}
{{- if .worker -}}
{{- if not (and $scaling.providerPerSecond $scaling.podPerSecond) -}}
{{- fail (printf "%s: to scale it, state autoscaling.providerPerSecond (what your providers take) and autoscaling.podPerSecond (what one pod hands over)" .component) -}}
{{- end -}}
{{- $bearable := int (floor (divf $scaling.providerPerSecond $scaling.podPerSecond)) -}}
{{- if lt $bearable (int $scaling.minReplicas) -}}
{{- fail (printf "%s: its providers bear %d pods (providerPerSecond divided by podPerSecond) and autoscaling.minReplicas is %d: lower the channel's concurrency, and podPerSecond with it" .component $bearable (int $scaling.minReplicas)) -}}
{{- end -}}
{{- $most = min $most $bearable -}}
{{- end -}}
{{- if lt $most (int $scaling.minReplicas) -}}
{{- fail (printf "%s: autoscaling.maxReplicas is below minReplicas" .component) -}}
{{- end -}}
{{- $most -}}
{{- end -}}
