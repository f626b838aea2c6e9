{{- define "pgitops.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "pgitops.labels" -}}
app.kubernetes.io/name: pgitops
{{- end }}
