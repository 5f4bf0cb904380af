{{/* The program's configuration: from the tree to TOML, and which Secrets it reads. */}}

{{- define "watchword.secretsDir" -}}/etc/watchword/secrets{{- end -}}
{{- define "watchword.templatesDir" -}}/etc/watchword/templates{{- end -}}

{{/* The SHA-256 of `example-key-change-me`, which the program refuses. */}}
{{- define "watchword.exampleKey" -}}22a60ff8c666ee7f81ede927b1adfb38922412b0bbd7162b99525a22607f603b{{- end -}}

{{/* The configuration of one workload, as JSON. Each gets the sections and keys its roles need: the API no
     provider's secret, a worker none of the other channel's and only the sealing keys, a verifier neither
     the broker's password nor the sealing keys. Takes root and workload. */}}
{{- define "watchword.config" -}}
{{- $values := .root.Values -}}
{{- $dir := include "watchword.secretsDir" . -}}
{{- $keys := $values.keys -}}
{{- $ring := printf "%s/%s" $dir $keys.existingSecret -}}
{{- $tree := deepCopy $values.config -}}
{{- range $name, $service := $tree.services -}}
{{- range $service.api_keys -}}
{{- if and (eq (lower (toString .sha256)) (include "watchword.exampleKey" $)) (not (has $values.bindAddress (list "127.0.0.1" "[::1]"))) -}}
{{- fail (printf "config.services.%s: api_keys has the published example key; make one with `openssl rand -hex 24` and give its SHA-256" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $omitted := ternary (list "sms" "email") (list (ternary "email" "sms" (eq .workload.channel "sms"))) (empty .workload.channel) -}}
{{- /* The issuer renders the texts of the workers; a verifier on its own needs no templates. */ -}}
{{- if eq (join "," .workload.roles) "verifier" }}{{ $omitted = append $omitted "templates" }}{{ end -}}
{{- if $values.templates -}}
{{- if $tree.templates }}{{ fail "config.templates and templates exclude each other: the chart sets the first for the second" }}{{ end -}}
{{- $_ := set $tree "templates" (include "watchword.templatesDir" .) -}}
{{- end -}}
{{- range $omitted }}{{ $_ := unset $tree . }}{{ end -}}
{{- $_ := set $tree "engine" "distributed" -}}
{{- $_ := set $tree "log" (merge (default dict $tree.log) (dict "format" "json")) -}}
{{- $_ := set $tree "http" (merge (default dict $tree.http) (dict "listen" (printf "%s:%d" $values.bindAddress (int $values.httpPort)))) -}}
{{- $_ := set $tree "admin" (merge (dict "listen" (printf "%s:%d" $values.bindAddress (int $values.adminPort))) (default dict $tree.admin)) -}}
{{- range $peer := include "watchword.peers" .workload | fromJsonArray -}}
{{- $given := index $values $peer -}}
{{- $section := dict "url" $given.url -}}
{{- if $given.allowCleartext }}{{ $_ := set $section "allow_cleartext" true }}{{ end -}}
{{- with $given.existingSecret -}}
{{- $_ := set $section "password" (dict "file" (printf "%s/%s/%s" $dir . $given.passwordKey)) -}}
{{- end -}}
{{- $_ := set $tree $peer $section -}}
{{- end -}}
{{- $rings := dict -}}
{{- $names := list -}}
{{- if ne (join "," .workload.roles) "verifier" }}{{ $names = append $names "sealing" }}{{ end -}}
{{- if empty .workload.channel -}}
{{- $names = append $names "digest" -}}
{{- $_ := set $rings "index" (dict "file" (printf "%s/%s" $ring $keys.index)) -}}
{{- end -}}
{{- range $name := $names -}}
{{- $list := list -}}
{{- range index $keys $name -}}
{{- $list = append $list (dict "id" .id "file" (printf "%s/%s" $ring .key)) -}}
{{- end -}}
{{- $_ := set $rings $name $list -}}
{{- end -}}
{{- $_ := set $tree "keys" $rings -}}
{{- toJson $tree -}}
{{- end -}}

{{/* A table as TOML. Helm's own toToml writes whole numbers as floats, which the program refuses.
     JSON's strings, numbers and booleans are TOML's. Takes table and path. */}}
{{- define "watchword.toml" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ include "watchword.tomlKey" $key }} = {{ include "watchword.tomlValue" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $here := append $path (include "watchword.tomlKey" $key) }}

[{{ join "." $here }}]
{{- include "watchword.toml" (dict "table" $value "path" $here) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "watchword.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* A value on one line; a table in a list is an inline table. */}}
{{- define "watchword.tomlValue" -}}
{{- $parts := list -}}
{{- if kindIs "map" . -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $parts = append $parts (printf "%s = %s" (include "watchword.tomlKey" $key) (include "watchword.tomlValue" $value)) -}}
{{- end -}}
{{- end -}}
{ {{ join ", " $parts }} }
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- $parts = append $parts (include "watchword.tomlValue" .) -}}{{- end -}}
[{{ join ", " $parts }}]
{{- else -}}
{{ toJson . }}
{{- end -}}
{{- end -}}

{{/* Every file and variable the tree refers to, a line each: `file PATH`, `env NAME`. A reference is a
     table with nothing but `file` or `env` in it (a key of a ring also has its id), or one of two keys. */}}
{{- define "watchword.references" -}}
{{- if kindIs "map" . -}}
{{- /* null is a value that another file of values took away */ -}}
{{- $names := list -}}
{{- range $key, $value := . }}{{ if not (or (eq $key "id") (kindIs "invalid" $value)) }}{{ $names = append $names $key }}{{ end }}{{ end -}}
{{- range $key, $value := . -}}
{{- if and (kindIs "string" $value) (or (has $key (list "ca_file" "templates")) (and (has $key (list "file" "env")) (eq (len $names) 1))) }}
{{ ternary "env" "file" (eq $key "env") }} {{ $value }}
{{- else -}}
{{- include "watchword.references" $value -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" . -}}
{{- range . -}}{{- include "watchword.references" . -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* What a workload mounts, as JSON: a table from each Secret to its keys. What refers to nothing that
     the pod has is refused here, and not by a pod that cannot start. Takes config, pod, component, and
     whether the chart mounts templates. */}}
{{- define "watchword.secrets" -}}
{{- $dir := include "watchword.secretsDir" . -}}
{{- $own := ternary (include "watchword.templatesDir" .) "" .templates -}}
{{- $pod := .pod -}}
{{- $component := .component -}}
{{- $secrets := dict -}}
{{- range splitList "\n" (include "watchword.references" .config | trim) | uniq | sortAlpha -}}
{{- $kind := splitList " " . | first -}}
{{- $what := trimPrefix (printf "%s " $kind) . -}}
{{- if eq $kind "env" -}}
{{- $names := list -}}
{{- range $pod.extraEnv }}{{ $names = append $names .name }}{{ end -}}
{{- if not (has $what $names) -}}
{{- fail (printf "%s: config refers to the variable %s, which pod.extraEnv does not set" $component $what) -}}
{{- end -}}
{{- else if hasPrefix (printf "%s/" $dir) $what -}}
{{- $parts := splitList "/" (trimPrefix (printf "%s/" $dir) $what) -}}
{{- if or (ne (len $parts) 2) (has "" $parts) (has ".." $parts) -}}
{{- fail (printf "%s: config refers to %s, which is not %s/SECRET/KEY" $component $what $dir) -}}
{{- end -}}
{{- $_ := set $secrets (first $parts) (append (default list (index $secrets (first $parts))) (last $parts)) -}}
{{- else -}}
{{- $mounted := eq $what $own -}}
{{- range $pod.extraVolumeMounts }}{{ if or (eq $what .mountPath) (hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $what) }}{{ $mounted = true }}{{ end }}{{ end -}}
{{- if not $mounted -}}
{{- fail (printf "%s: config refers to the file %s, which is neither %s/SECRET/KEY nor below a mountPath of pod.extraVolumeMounts" $component $what $dir) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $secrets -}}
{{- end -}}
