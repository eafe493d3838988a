{{- /* The pod of a role: writer or front; takes the root with `role` in it. */ -}}
{{- define "dpdau.pod" -}}
serviceAccountName: {{ include "dpdau.name" . }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: dpdau
    image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args:
      - serve
      - --host=0.0.0.0
      - --port=8000
      {{- if and (eq .role "writer") .Values.consume }}
      - --consume={{ .Values.consume }}
      {{- end }}
    env:
      # A folder of its own on the volume: its mode is the product's, 0700.
      - name: DATA_DIR
        value: /data/dpdau
      {{- range $name, $value := .Values.settings }}
      - name: {{ $name }}
        value: {{ $value | quote }}
      {{- end }}
      {{- range $name := list "HASH_SALT_SECRET" "SERVICE_API_KEY" }}
      - name: {{ $name }}
        valueFrom:
          secretKeyRef:
            name: {{ $.Values.existingSecret }}
            key: {{ $name }}
      {{- end }}
      - name: SERVICE_DATABASE_URL
        valueFrom:
          secretKeyRef:
            name: {{ .Values.existingSecret }}
            key: SERVICE_DATABASE_URL
            # Fronts and the writer share the ledger, so with fronts it has to be there.
            optional: {{ eq (int .Values.fronts.replicas) 0 }}
      {{- range $name := list "KAFKA_OPTIONS" "ALERT_WEBHOOK_URL" "ALERT_WEBHOOK_SECRET" "SMTP_URL" }}
      - name: {{ $name }}
        valueFrom:
          secretKeyRef:
            name: {{ $.Values.existingSecret }}
            key: {{ $name }}
            optional: true
      {{- end }}
    ports:
      - name: http
        containerPort: 8000
        protocol: TCP
    # A start may verify, mend and migrate what is stored; it has ten minutes.
    startupProbe:
      httpGet:
        path: /healthz
        port: http
      periodSeconds: 5
      failureThreshold: 120
    livenessProbe:
      httpGet:
        path: /healthz
        port: http
      periodSeconds: 20
      timeoutSeconds: 5
      failureThreshold: 3
    readinessProbe:
      httpGet:
        path: /readyz
        port: http
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 2
    resources: {{- toYaml (ternary .Values.resources .Values.fronts.resources (eq .role "writer")) | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      privileged: false
      readOnlyRootFilesystem: true
      runAsNonRoot: true
      capabilities:
        drop: ["ALL"]
    volumeMounts:
      - name: data
        mountPath: /data
      - name: tmp
        mountPath: /tmp
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 1Gi
  {{- if eq .role "front" }}
  # A front has no activity: what it writes here is made anew by the next pod.
  - name: data
    emptyDir:
      sizeLimit: 1Gi
  {{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
