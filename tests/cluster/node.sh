# The programs of one node: etcd, the control plane, containerd, kubelet, kube-proxy, kube-router.
# Sourced by run.sh, which has put this process into namespaces of its own: fixed ports collide with
# nobody, and mounts, devices and packet rules go when the namespaces go. Tokens are of this run only.

node=10.243.0.1
pods=10.244.0.0/24
services=10.96.0.0/16
state=$folder/node
socket=$state/containerd.sock

# What would otherwise be written outside of our folder, and what a new network lacks.
prepare_namespaces() {
  mount -t tmpfs tmpfs /run
  mkdir -p /run/lock
  local place
  for place in /var/log /var/lib/cni; do mount -t tmpfs tmpfs "$place"; done
  # containerd's mounts have to be seen by the kubelet and the other way round.
  mount --make-rshared /
  ip link set lo up
  ip address add "$node/32" dev lo
  echo 1 >/proc/sys/net/ipv4/ip_forward
}

# start NAME PROGRAM ARGUMENT…: in the background, its words in NAME.log. Ends with the namespace.
start() {
  local name=$1
  shift
  "$@" >"$state/$name.log" 2>&1 </dev/null &
}

# kubeconfig NAME USER [GROUP]: who may do what is Kubernetes' own RBAC.
kubeconfig() {
  local token
  token=$(openssl rand -hex 32)
  printf '%s,%s,%s,"%s"\n' "$token" "$2" "$1" "${3:-}" >>"$state/tokens.csv"
  cat >"$state/$1.kubeconfig" <<T
apiVersion: v1
kind: Config
clusters:
  - name: node
    cluster:
      server: https://$node:6443
      certificate-authority: $state/certificates/apiserver.crt
users: [{name: $1, user: {token: $token}}]
contexts: [{name: $1, context: {cluster: node, user: $1}}]
current-context: $1
T
}

start_control_plane() {
  openssl genrsa -out "$state/accounts.key" 2048 2>/dev/null
  openssl rsa -in "$state/accounts.key" -pubout -out "$state/accounts.pub" 2>/dev/null
  kubeconfig admin admin system:masters
  kubeconfig controllers system:kube-controller-manager
  kubeconfig scheduler system:kube-scheduler
  kubeconfig kubelet system:node:node1 system:nodes
  kubeconfig proxy system:kube-proxy
  kubeconfig enforcer enforcer system:masters
  start etcd "$binaries/etcd" --data-dir "$state/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380
  # OwnerReferencesPermissionEnforcement is not on by default; where it is, RBAC has to be complete.
  start kube-apiserver "$binaries/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --cert-dir="$state/certificates" --bind-address="$node" --advertise-address="$node" \
    --secure-port=6443 --service-cluster-ip-range="$services" --authorization-mode=Node,RBAC \
    --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement \
    --service-account-issuer=https://kubernetes.default.svc --token-auth-file="$state/tokens.csv" \
    --service-account-key-file="$state/accounts.pub" \
    --service-account-signing-key-file="$state/accounts.key" \
    --kubelet-preferred-address-types=InternalIP
  within 60 'kube-apiserver ready' kubectl get --raw /readyz
  local as=(--bind-address=127.0.0.1 --leader-elect=false)
  local file=$state/controllers.kubeconfig
  start kube-controller-manager "$binaries/kube-controller-manager" "${as[@]}" \
    --kubeconfig="$file" --authentication-kubeconfig="$file" --authorization-kubeconfig="$file" \
    --use-service-account-credentials=true --root-ca-file="$state/certificates/apiserver.crt" \
    --service-account-private-key-file="$state/accounts.key"
  file=$state/scheduler.kubeconfig
  start kube-scheduler "$binaries/kube-scheduler" "${as[@]}" \
    --kubeconfig="$file" --authentication-kubeconfig="$file" --authorization-kubeconfig="$file"
}

write_containerd_configuration() {
  # restrict_oom_score_adj: without it no pod starts where a process may not lower its own score.
  cat >"$state/containerd.toml" <<T
version = 2
root = "$state/containerd"
state = "$state/containerd-run"
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "registry.local/pause:1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
T
  # ptp and not bridge: every packet is routed, so that Services work without br_netfilter.
  mkdir "$state/cni"
  jq -n --arg pods "$pods" --arg leases "$state/addresses" '{cniVersion: "0.4.0", name: "pods",
    plugins: [{type: "ptp", ipam: {type: "host-local", dataDir: $leases,
      ranges: [[{subnet: $pods}]], routes: [{dst: "0.0.0.0/0"}]}},
      {type: "portmap", capabilities: {portMappings: true}}]}' >"$state/cni/10-pods.conflist"
}

start_containerd() {
  write_containerd_configuration
  start containerd containerd --config "$state/containerd.toml"
  within 30 'containerd answers' containers version
}

import_images() {
  local archive
  for archive in "$folder/images.tar" ${own_image:+"$own_image"}; do
    containers images import "$archive" >"$state/import.log" 2>&1 ||
      die "the images were not imported: $(tail -n 3 "$state/import.log")"
  done
  rm "$folder/images.tar"
}

# containers ARGUMENT…: ctr, at our containerd and in Kubernetes' namespace.
containers() { ctr -a "$socket" -n k8s.io "$@"; }

start_kubelet() {
  # Anonymous and always allowed: nobody outside the network namespace reaches its port. No DNS
  # runs on the node: names fail at once instead of after a timeout.
  cat >"$state/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $node
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
containerRuntimeEndpoint: unix://$socket
evictionHard: {memory.available: 100Mi, nodefs.available: 1%}
failCgroupV1: false
failSwapOn: false
imageGCHighThresholdPercent: 100
podLogsDir: $state/logs
resolvConf: ""
T
  start kubelet "$binaries/kubelet" --config="$state/kubelet.yaml" \
    --kubeconfig="$state/kubelet.kubeconfig" --hostname-override=node1 --node-ip="$node" \
    --root-dir="$state/kubelet" --cert-dir="$state/kubelet/pki"
  cat >"$state/proxy.yaml" <<T
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
bindAddress: 127.0.0.1
clientConnection: {kubeconfig: $state/proxy.kubeconfig}
clusterCIDR: $pods
conntrack: {maxPerCore: 0, min: 0}
hostnameOverride: node1
mode: iptables
T
  start kube-proxy "$binaries/kube-proxy" --config="$state/proxy.yaml"
}

# Network policies and nothing else of kube-router: kube-proxy has the Services, ptp the addresses.
start_enforcer() {
  start kube-router "$enforcer" --kubeconfig="$state/enforcer.kubeconfig" \
    --hostname-override=node1 --service-cluster-ip-range="$services" --health-port=0 \
    --run-firewall=true --run-router=false --run-service-proxy=false --enable-cni=false
  within 30 'kube-router has its chains' iptables -w 5 -n -L KUBE-ROUTER-FORWARD
}

start_node() {
  mkdir -p "$state/logs"
  export KUBECONFIG=$state/admin.kubeconfig
  prepare_namespaces
  timed 'control plane started' start_control_plane
  start_containerd
  timed 'images imported' import_images
  start_kubelet
  timed 'node Ready after the start of the kubelet' node_ready
  start_enforcer
}

node_ready() {
  within 60 'the node is there' kubectl get node node1
  kubectl wait node/node1 --for=condition=Ready --timeout=60s >/dev/null
}

# Folders as volumes, one for each claim of the cases: nothing here makes volumes on demand.
add_volumes() {
  local number
  for number in 1 2 3 4; do
    mkdir -p "$state/volumes/$number"
    kubectl apply -f - >/dev/null <<T
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-$number}
spec:
  accessModes: [ReadWriteOnce]
  capacity: {storage: 1Gi}
  local: {path: $state/volumes/$number}
  nodeAffinity:
    required:
      nodeSelectorTerms:
        - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node1]}]
T
  done
}
