{{/* The name of all that is made: the release's, with the chart's at its end where it lacks it. */}}
{{- define "resnet-device-plugin.name" -}}
{{- if contains "resnet-device-plugin" .Release.Name -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else -}}
{{ printf "%s-resnet-device-plugin" (.Release.Name | trunc 42 | trimSuffix "-") }}
{{- end -}}
{{- end -}}

{{/* What selects its pods; never changed, since a DaemonSet's selector can't be. */}}
{{- define "resnet-device-plugin.selector" -}}
app.kubernetes.io/name: resnet-device-plugin
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "resnet-device-plugin.labels" -}}
{{ include "resnet-device-plugin.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Where the sockets lie, on the host and in the pod alike. */}}
{{- define "resnet-device-plugin.sockets" -}}
{{- if eq .Values.kubelet.registration "classic" -}}
/var/lib/kubelet/device-plugins
{{- else -}}
{{ .Values.kubelet.rootDirectory }}/plugins_registry
{{- end -}}
{{- end -}}
