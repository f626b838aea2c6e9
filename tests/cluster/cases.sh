# What must be so on a real node. Sourced by run.sh. Every case prints what it saw and how long it
# took, and ends the run when it is not so.

# What every document of the cases asks for at least; grows with every rollout that restarts.
connections=100

run_cases() {
  case_installation
  case_network_policies
  case_reload
  case_restart_in_place
  case_stale_secrets
  case_leader_deleted_in_a_rollout
  case_pod_deleted_while_paused standby
  case_pod_deleted_while_paused primary
  case_leader_killed
  say 'all cases passed'
}

available() {
  kubectl wait -n pgitops-system deployment/pgitops --for=condition=Available --timeout=120s
  kubectl rollout status -n pgitops-system deployment/pgitops --timeout=120s
} >/dev/null

database_ready() {
  kubectl wait -n demo "pg/$database" --for=jsonpath='{.status.phase}'=Ready --timeout=180s
} >/dev/null

case_installation() {
  say 'the installation of the README: two replicas, real rights, a database of three pods'
  kubectl apply -k "$here" >/dev/null
  timed 'both replicas Ready' available
  kubectl create namespace demo >/dev/null
  kubectl apply -f "$tree/examples/manifests/postgres.yaml" \
    -f "$tree/examples/manifests/config-repository.yaml" >/dev/null
  timed 'three pods of Postgres Ready' database_ready
  kubectl wait -n pgitops-system pod/git --for=condition=Ready --timeout=60s >/dev/null
  password=$(kubectl get secret -n demo "$database-auth" -o 'jsonpath={.data.password}' | base64 -d)
  start_recording
  make_clone
}

# same_pods BEFORE [BUT]: no pod was replaced and no container restarted since; but one may be.
same_pods() {
  local but=${2:-nothing}
  [ "$(grep -v "^$but " <<<"$1")" = "$(identities | grep -v "^$but ")" ] ||
    die "a pod was replaced or a container restarted; before: $1; now: $(identities)"
}

case_reload() {
  say 'a push that needs a reload'
  local before
  before=$(identities)
  push "$connections" 8MB
  proven "$connections" 8MB
  same_pods "$before"
}

case_restart_in_place() {
  say 'a push that needs a restart of every server: no pod is replaced, no container restarted'
  local before
  before=$(identities)
  connections=150
  push "$connections" 8MB
  proven "$connections" 8MB
  same_pods "$before"
  sed 's/^/   /' <<<"$before"
  say "git log -1 --notes='pgitops/*'"
  git -C "$work" log -1 --notes='pgitops/*' | sed 's/^/   /'
}

# How many pods have a line in the file that the kubelet mounts.
pods_with() {
  local uid count=0
  for uid in $(each_pod '{.metadata.uid}'); do
    ! grep -q "$1" \
      "$state/kubelet/pods/$uid/volumes/kubernetes.io~projected/custom-config/postgresql.conf" ||
      count=$((count + 1))
  done
  echo "$count"
}

all_pods_have() { [ "$(pods_with "$1")" = 3 ]; }

case_stale_secrets() {
  say 'the kubelet refreshes a Secret at its leisure: a rollout does not wait for it'
  local memory refreshed
  # The kubelet may happen to come by in that very second, therefore up to three times.
  for memory in 9 10 11; do
    push "$connections" "${memory}MB"
    within 60 'the request is Successful' seen requests "$commit Successful"
    refreshed=$(pods_with "^work_mem = '${memory}MB'")
    proven "$connections" "${memory}MB"
    [ "$refreshed" = 3 ] || break
  done
  [ "$refreshed" -lt 3 ] || die 'the kubelet was never behind; nothing was shown'
  printf '   when it was successful, %s of 3 pods had the new Secret\n' "$refreshed"
  within 180 'the kubelet has refreshed the Secret' all_pods_have "^work_mem = '${memory}MB'"
  printf '   all had it: %s ms after the push\n' $(($(now) - pushed))
}

# Whether the rollout of a commit is under way now, as the API server has it.
in_progress() {
  kubectl get postgresopsrequests -n demo -o json | jq -e --arg commit "$1" '.items[]
    | select(.metadata.annotations["pgitops.dev/commit"] == $commit)
    | select(.status.phase == "Progressing")'
} >/dev/null

# in_mid_rollout COMMAND…: carries it out while a rollout with restarts has the database paused.
# Sets `acted`, and from before the push `before` and `led`. The rollout may end before the command
# has arrived, therefore up to five times.
in_mid_rollout() {
  local try
  for try in 1 2 3 4 5; do
    before=$(identities) led=$(leader) connections=$((connections + 10))
    push "$connections" 8MB
    within 60 'the database is paused' seen paused paused=True "$pushed"
    acted=$(now)
    "$@" >/dev/null
    if in_progress "$commit"; then return; fi
    echo "   try $try: the rollout ended too early"
    proven "$connections" 8MB
    available
    database_ready
  done
  die 'every rollout ended before it was disturbed; nothing was shown'
}

delete_leader() { kubectl delete pod -n pgitops-system "${led%%_*}" --wait=false; }

case_leader_deleted_in_a_rollout() {
  say "the leader's pod is deleted in mid-rollout"
  in_mid_rollout delete_leader
  within 60 'another replica leads' another_leads "$led" "$acted"
  printf '   another led: %s ms after the deletion\n' $(($(another_leads "$led" "$acted") - acted))
  proven "$connections" 8MB
  same_pods "$before"
  available
}

has_role() {
  [ "$(kubectl get pod -n demo "$1" -o 'jsonpath={.metadata.labels.kubedb\.com/role}')" = "$2" ]
}

case_pod_deleted_while_paused() {
  say "a pod of Postgres, a $1, is deleted while the database is paused"
  local pod
  pod=$(kubectl get pods -n demo -l "kubedb.com/role=$1" \
    -o 'jsonpath={.items[-1:].metadata.name}')
  in_mid_rollout kubectl delete pod -n demo "$pod" --wait=false
  proven "$connections" 8MB
  printf '   successful: %s ms after the deletion\n' \
    $(($(seen requests "$commit Successful") - acted))
  database_ready
  same_pods "$before" "$pod"
  ! identities | grep -qxF "$(grep "^$pod " <<<"$before")" || die "$pod was not replaced"
  within 30 "$pod is a $1 again" has_role "$pod" "$1"
}

case_leader_killed() {
  say 'two replicas, and the leader is killed: its lease has to run out'
  local container
  led=$(leader)
  container=$(kubectl get pod -n pgitops-system "${led%%_*}" \
    -o 'jsonpath={.status.containerStatuses[0].containerID}')
  acted=$(now)
  containers tasks kill --signal SIGKILL "${container#containerd://}"
  within 60 'another replica leads' another_leads "$led" "$acted"
  printf '   another led: %s ms after the kill\n' $(($(another_leads "$led" "$acted") - acted))
  push "$connections" 12MB
  proven "$connections" 12MB
}
