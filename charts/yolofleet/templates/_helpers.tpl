{{- define "yolofleet.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* RELEASE-CHART, or RELEASE alone where it names the chart already; room is left for suffixes. */}}
{{- define "yolofleet.fullname" -}}
{{- $name := include "yolofleet.name" . }}
{{- $full := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $full = .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $full = .Release.Name }}
{{- end }}
{{- $full = $full | trunc 50 | trimSuffix "-" }}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $full) }}
{{- fail (printf "\n\nNo Service can be called %s: a name begins with a letter and holds only a-z, 0-9 and -.\nChoose another release name, or set fullnameOverride.\n" $full) }}
{{- end }}
{{- $full }}
{{- end }}

{{- define "yolofleet.selectorLabels" -}}
app.kubernetes.io/name: {{ include "yolofleet.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* What the operator's own pods are selected by. */}}
{{- define "yolofleet.podSelector" -}}
{{ include "yolofleet.selectorLabels" . }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "yolofleet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "yolofleet.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* NAMESPACE/NAME of the release that an object of the cluster belongs to; / for none. */}}
{{- define "yolofleet.releaseOf" -}}
{{- $notes := .metadata.annotations | default dict }}
{{- get $notes "meta.helm.sh/release-namespace" | default "" }}/{{ get $notes "meta.helm.sh/release-name" | default "" }}
{{- end }}

{{/* The same in words; what was applied without Helm is told by its label. */}}
{{- define "yolofleet.whose" -}}
{{- $owner := include "yolofleet.releaseOf" . }}
{{- if eq $owner "/" -}}
the release {{ get (.metadata.labels | default dict) "app.kubernetes.io/instance" | default .metadata.name }}
{{- else -}}
the release {{ base $owner }} in namespace {{ dir $owner }}
{{- end }}
{{- end }}

{{/* "true" unless the namespace of the release that an object belongs to is gone, with its operator. */}}
{{- define "yolofleet.canRun" -}}
{{- $namespace := dir (include "yolofleet.releaseOf" .) }}
{{- if eq $namespace "/" -}}
true
{{- else }}
{{- with lookup "v1" "Namespace" "" $namespace }}
{{- if not .metadata.deletionTimestamp -}}
true
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The namespaces that are looked after, as A,B; * for all. */}}
{{- define "yolofleet.watched" -}}
{{ join "," .Values.watchNamespaces | default "*" }}
{{- end }}

{{- define "yolofleet.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "yolofleet.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Two names: what cert-manager leaves when it is switched off again is never taken for the chart's own. */}}
{{- define "yolofleet.webhookSecret" -}}
{{ include "yolofleet.fullname" . }}-webhook{{ if .Values.webhook.certManager.enabled }}-issued{{ end }}
{{- end }}

{{/* An image of this release, given as (list . "NAME:TAG"), with its digest where `make release` told it. */}}
{{- define "yolofleet.released" -}}
{{- $notes := (index . 0).Chart.Annotations }}
{{- $image := index . 1 }}
{{- $digests := index $notes "yolofleet.io/digests" | default "{}" | fromJson }}
{{- index $notes "yolofleet.io/registry" }}/{{ $image }}{{ with get $digests $image }}@{{ . }}{{ end }}
{{- end }}

{{- define "yolofleet.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion }}
{{- if .Values.image.repository -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- else -}}
{{ include "yolofleet.released" (list . (printf "operator:%s" $tag)) }}
{{- end }}
{{- end }}

{{/* The serving image of a variant, given as (list . "cpu"). */}}
{{- define "yolofleet.servingImage" -}}
{{- $root := index . 0 }}
{{- $variant := index . 1 }}
{{- $ours := printf "yoloserve:%s-%s" $root.Chart.AppVersion $variant }}
{{- index $root.Values.servingImages $variant | default (include "yolofleet.released" (list $root $ours)) }}
{{- end }}

{{/* A map as NAME=VALUE,NAME=VALUE. */}}
{{- define "yolofleet.pairs" -}}
{{- $pairs := list }}
{{- range $name, $value := . }}
{{- $pairs = append $pairs (printf "%s=%s" $name $value) }}
{{- end }}
{{- join "," $pairs }}
{{- end }}

{{/* What the cluster asks of pods: of the operator's, and of that of `helm test`. */}}
{{- define "yolofleet.admitted" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* What keeps a container from anything but its own work. */}}
{{- define "yolofleet.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "yolofleet.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Whether detectors may claim devices. */}}
{{- define "yolofleet.claimsDevices" -}}
{{- if or .Values.dra.enabled (.Capabilities.APIVersions.Has "resource.k8s.io/v1/ResourceClaimTemplate") }}yes{{ end }}
{{- end }}

{{/* What the operator does in the namespaces of detectors: in a ClusterRole, or in a Role of each. */}}
{{- define "yolofleet.detectorRules" -}}
- apiGroups: [yolofleet.io]
  resources: [yolodetectors]
  verbs: [get, list, watch]
- apiGroups: [yolofleet.io]
  resources: [yolodetectors/status]
  verbs: [patch]
# Children block the deletion of their owner until they are gone. Where the admission plug-in
# OwnerReferencesPermissionEnforcement runs (OpenShift), saying so needs this right.
- apiGroups: [yolofleet.io]
  resources: [yolodetectors/finalizers]
  verbs: [update]
# The children of a detector.
- apiGroups: [apps]
  resources: [deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
{{- if or .Values.keda.enabled (.Capabilities.APIVersions.Has "keda.sh/v1alpha1/ScaledObject") }}
- apiGroups: [keda.sh]
  resources: [scaledobjects]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if include "yolofleet.claimsDevices" . }}
- apiGroups: [resource.k8s.io]
  resources: [resourceclaimtemplates]
  verbs: [get, list, watch, create, patch, delete]
# Which devices are held.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaims]
  verbs: [list]
{{- end }}
{{- if or .Values.ray.enabled (.Capabilities.APIVersions.Has "ray.io/v1/RayService") }}
- apiGroups: [ray.io]
  resources: [rayservices]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
- apiGroups: [networking.istio.io]
  resources: [virtualservices, destinationrules]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
# Whether the gateways that a detector names exist.
- apiGroups: [networking.istio.io, gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [get, list, watch]
# Why a pod does not serve is told in the detector's conditions.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [events]
  # Listed for a pod that is long about to start: nobody else says which Secret or volume it lacks.
  verbs: [list, create, patch]
{{- end }}
