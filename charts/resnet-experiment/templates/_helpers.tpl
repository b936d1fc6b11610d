{{- define "resnet-experiment.labels" -}}
app.kubernetes.io/name: resnet-experiment
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* A map as JSON, without what is null and maps that hold nothing else: but an emptyDir says much by being there. */}}
{{- define "resnet-experiment.pruned" -}}
{{- $kept := dict -}}
{{- range $name, $value := . -}}
{{- if kindIs "map" $value -}}
{{- $inner := include "resnet-experiment.pruned" $value | fromJson -}}
{{- if or $inner (eq $name "emptyDir") -}}
{{- $_ := set $kept $name $inner -}}
{{- end -}}
{{- else if not (kindIs "invalid" $value) -}}
{{- $_ := set $kept $name $value -}}
{{- end -}}
{{- end -}}
{{- toJson $kept -}}
{{- end -}}

{{/* The spec as JSON: the preset's, changed by the values; made claims take the place of volumes. */}}
{{- define "resnet-experiment.spec" -}}
{{- $given := include "resnet-experiment.pruned" (omit .Values "preset" "claims" "networkPolicy" "test" "global") | fromJson -}}
{{- $spec := dict -}}
{{- with .Values.preset -}}
{{- $spec = get ($.Files.Get "presets.yaml" | fromYaml) . -}}
{{- end -}}
{{- range $field, $claim := dict "checkpoint" .Values.claims.checkpoints "dataset" .Values.claims.dataset -}}
{{- $volume := dig $field "volume" dict $given -}}
{{- if $claim.create -}}
{{- if $volume -}}
{{- fail (printf "%s.volume: leave it out where claims makes one, or make none" $field) -}}
{{- end -}}
{{- $made := dict "claimName" (include "resnet-experiment.claim" (dict "field" $field "Release" $.Release)) -}}
{{- $_ := set $given $field (mergeOverwrite (get $given $field | default dict) (dict "volume" (dict "persistentVolumeClaim" $made))) -}}
{{- end -}}
{{- /* A volume of another sort replaces the preset's. */ -}}
{{- if hasKey $volume "emptyDir" -}}
{{- $_ := unset (dig $field "volume" dict $spec) "persistentVolumeClaim" -}}
{{- end -}}
{{- end -}}
{{- $spec = mergeOverwrite $spec $given -}}
{{- range $path := list "model" "accelerator.type" "dataset.name" "training.batchSizePerDevice" -}}
{{- $value := $spec -}}
{{- range splitList "." $path -}}
{{- $value = get ($value | default dict) . -}}
{{- end -}}
{{- $_ := required (printf "%s is required: set it, or a preset" $path) $value -}}
{{- end -}}
{{- toJson $spec -}}
{{- end -}}

{{/* The name of the claim that is made for `field` of the spec. */}}
{{- define "resnet-experiment.claim" -}}
{{ printf "%s-%s" .Release.Name (eq .field "checkpoint" | ternary "checkpoints" "dataset") }}
{{- end -}}
