{{/* The name of all that is made: the release's, with the chart's at its end where it lacks it. */}}
{{- define "resnet-operator.name" -}}
{{- if contains "resnet-operator" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-resnet-operator" (.Release.Name | trunc 47 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{/* What selects its pods; never changed, since a Deployment's selector can't be. */}}
{{- define "resnet-operator.selector" -}}
app.kubernetes.io/name: resnet-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "resnet-operator.labels" -}}
{{ include "resnet-operator.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* An image: of `value` {repository, tag}, the tag by default the appVersion. */}}
{{- define "resnet-operator.image" -}}
{{ printf "%s:%s" .value.repository (.value.tag | default .Chart.AppVersion) }}
{{- end -}}

{{/* "true" where an object of somebody else's kind is to be made: by its value, or where the cluster has the kind. */}}
{{- define "resnet-operator.made" -}}
{{- if kindIs "bool" .value -}}
{{ .value }}
{{- else -}}
{{ .Capabilities.APIVersions.Has .kind }}
{{- end -}}
{{- end -}}
