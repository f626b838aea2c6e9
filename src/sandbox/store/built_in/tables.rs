//! What the Kubernetes types do not say of themselves: selectable fields, merge keys, defaults.
//!
//! Taken from the `x-kubernetes-*` extensions of Kubernetes' OpenAPI document and from its
//! defaulting functions. Only data.

pub(super) const POD_FIELDS: &[&str] = &[
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.nominatedNodeName",
];

pub(super) const CORE_EVENT_FIELDS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

pub(super) const EVENT_FIELDS: &[&str] = &[
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

/// Definitions that server-side apply replaces as a whole.
pub(super) const ATOMIC: &[&str] = &[
    "LabelSelector",
    "ObjectReference",
    "LocalObjectReference",
    "TypedLocalObjectReference",
    "OwnerReference",
    "SecretReference",
    "SecretKeySelector",
    "ConfigMapKeySelector",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "NodeSelector",
    "NodeSelectorTerm",
    "ScopeSelector",
    "RoleRef",
    "Subject",
    "TopologySelectorTerm",
];

/// Single fields that server-side apply replaces as a whole.
pub(super) const ATOMIC_FIELDS: &[(&str, &str)] = &[("ServiceSpec", "selector"), ("PodSpec", "nodeSelector")];

/// Lists that merge: definition, field, keys for server-side apply (none: a set), key for a
/// strategic merge patch.
#[rustfmt::skip]
pub(super) const LISTS: &[(&str, &str, &[&str], &str)] = &[
    ("ObjectMeta", "ownerReferences", &["uid"], "uid"),
    ("ObjectMeta", "finalizers", &[], ""),
    ("PodSpec", "containers", &["name"], "name"),
    ("PodSpec", "initContainers", &["name"], "name"),
    ("PodSpec", "ephemeralContainers", &["name"], "name"),
    ("PodSpec", "volumes", &["name"], "name"),
    ("PodSpec", "imagePullSecrets", &["name"], "name"),
    ("PodSpec", "hostAliases", &["ip"], "ip"),
    ("PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"], "topologyKey"),
    ("PodSpec", "resourceClaims", &["name"], "name"),
    ("PodSpec", "schedulingGates", &["name"], "name"),
    ("Container", "env", &["name"], "name"),
    ("Container", "ports", &["containerPort", "protocol"], "containerPort"),
    ("Container", "volumeMounts", &["mountPath"], "mountPath"),
    ("Container", "volumeDevices", &["devicePath"], "devicePath"),
    ("EphemeralContainer", "env", &["name"], "name"),
    ("EphemeralContainer", "ports", &["containerPort", "protocol"], "containerPort"),
    ("EphemeralContainer", "volumeMounts", &["mountPath"], "mountPath"),
    ("EphemeralContainer", "volumeDevices", &["devicePath"], "devicePath"),
    ("ResourceRequirements", "claims", &["name"], "name"),
    ("PodStatus", "conditions", &["type"], "type"),
    ("PodStatus", "podIPs", &["ip"], "ip"),
    ("PodStatus", "hostIPs", &["ip"], "ip"),
    ("PodStatus", "resourceClaimStatuses", &["name"], "name"),
    ("ServiceSpec", "ports", &["port", "protocol"], "port"),
    ("ServiceStatus", "conditions", &["type"], "type"),
    ("ServiceAccount", "secrets", &["name"], "name"),
    ("NamespaceStatus", "conditions", &["type"], "type"),
    ("NodeSpec", "podCIDRs", &[], ""),
    ("NodeStatus", "addresses", &["type"], "type"),
    ("NodeStatus", "conditions", &["type"], "type"),
    ("PersistentVolumeClaimStatus", "conditions", &["type"], "type"),
    ("StatefulSetStatus", "conditions", &["type"], "type"),
    ("DeploymentStatus", "conditions", &["type"], "type"),
    ("PodDisruptionBudgetStatus", "conditions", &["type"], "type"),
    ("CustomResourceDefinitionStatus", "conditions", &["type"], "type"),
];

/// Defaults: definition, field, JSON. They come in where the object around them is there.
#[rustfmt::skip]
pub(super) const DEFAULTS: &[(&str, &str, &str)] = &[
    ("Container", "terminationMessagePath", r#""/dev/termination-log""#),
    ("Container", "terminationMessagePolicy", r#""File""#),
    ("Container", "resources", "{}"),
    ("ContainerPort", "protocol", r#""TCP""#),
    ("PodSpec", "restartPolicy", r#""Always""#),
    ("PodSpec", "dnsPolicy", r#""ClusterFirst""#),
    ("PodSpec", "schedulerName", r#""default-scheduler""#),
    ("PodSpec", "terminationGracePeriodSeconds", "30"),
    ("PodSpec", "securityContext", "{}"),
    ("Probe", "timeoutSeconds", "1"),
    ("Probe", "periodSeconds", "10"),
    ("Probe", "successThreshold", "1"),
    ("Probe", "failureThreshold", "3"),
    ("HTTPGetAction", "path", r#""/""#),
    ("HTTPGetAction", "scheme", r#""HTTP""#),
    ("SecretVolumeSource", "defaultMode", "420"),
    ("ConfigMapVolumeSource", "defaultMode", "420"),
    ("DownwardAPIVolumeSource", "defaultMode", "420"),
    ("ProjectedVolumeSource", "defaultMode", "420"),
    ("HostPathVolumeSource", "type", r#""""#),
    ("ObjectFieldSelector", "apiVersion", r#""v1""#),
    ("ServiceSpec", "type", r#""ClusterIP""#),
    ("ServiceSpec", "sessionAffinity", r#""None""#),
    ("ServicePort", "protocol", r#""TCP""#),
    ("EndpointPort", "protocol", r#""TCP""#),
    ("StatefulSetSpec", "replicas", "1"),
    ("StatefulSetSpec", "podManagementPolicy", r#""OrderedReady""#),
    ("StatefulSetSpec", "revisionHistoryLimit", "10"),
    ("StatefulSetSpec", "updateStrategy", r#"{"type": "RollingUpdate"}"#),
    ("StatefulSetSpec", "persistentVolumeClaimRetentionPolicy",
        r#"{"whenDeleted": "Retain", "whenScaled": "Retain"}"#),
    ("StatefulSetUpdateStrategy", "type", r#""RollingUpdate""#),
    ("DeploymentSpec", "replicas", "1"),
    ("DeploymentSpec", "revisionHistoryLimit", "10"),
    ("DeploymentSpec", "progressDeadlineSeconds", "600"),
    ("DeploymentSpec", "strategy",
        r#"{"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}"#),
    ("PersistentVolumeClaimSpec", "volumeMode", r#""Filesystem""#),
    ("PersistentVolumeSpec", "volumeMode", r#""Filesystem""#),
    ("PersistentVolumeSpec", "persistentVolumeReclaimPolicy", r#""Retain""#),
    ("Secret", "type", r#""Opaque""#),
    ("RoleRef", "apiGroup", r#""rbac.authorization.k8s.io""#),
    ("StorageClass", "reclaimPolicy", r#""Delete""#),
    ("StorageClass", "volumeBindingMode", r#""Immediate""#),
];
