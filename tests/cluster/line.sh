# The words of the cases: push, watch, read. Sourced by run.sh. Leaves what must be so to cases.sh.

database=ha-postgres
work=$folder/config
watched=$folder/watched

# record NAME ARGUMENT…: every change that `kubectl get -w` tells, a line with its time each.
record() {
  local name=$1
  shift
  kubectl get "$@" -w 2>>"$folder/record.log" | while read -r line; do
    printf '%s %s\n' "$(now)" "$line"
  done >"$watched/$name" &
}

start_recording() {
  mkdir "$watched"
  local commit='{.metadata.annotations.pgitops\.dev/commit}'
  record requests -n demo postgresopsrequests \
    -o "jsonpath={.metadata.name} $commit {.status.phase}{\"\\n\"}"
  record paused -n demo pg "$database" \
    -o 'jsonpath=paused={.status.conditions[?(@.type=="Paused")].status}{"\n"}'
  record lease -n pgitops-system lease pgitops -o 'jsonpath={.spec.holderIdentity}{"\n"}'
}

# seen NAME PATTERN [SINCE]: the time of the first line that matches, from a time on.
seen() {
  awk -v pattern="$2" -v since="${3:-0}" \
    '$1 >= since && $0 ~ pattern { print $1; found = 1; exit } END { exit !found }' "$watched/$1"
}

# push CONNECTIONS MEMORY: a commit; sets `commit`, and `pushed` to when the repository had it.
push() {
  cat >"$work/orders.yaml" <<T
apiVersion: pgitops.dev/v1alpha1
kind: PostgresConfig
metadata: {name: orders}
spec:
  databaseRef: {name: $database}
  parameters:
    max_connections: $1
    work_mem: $2
T
  git -C "$work" add .
  git -C "$work" commit -qm "orders: $1 connections, work_mem $2"
  git -C "$work" push -q origin main 2>>"$folder/git.log"
  pushed=$(date -r "$(echo "$state"/volumes/*/config.git/refs/heads/main)" +%s%3N)
  commit=$(git -C "$work" rev-parse HEAD)
}

make_clone() {
  git init -q --initial-branch=main "$work"
  git -C "$work" config user.name 'Cluster Case'
  git -C "$work" config user.email case@example.com
  git -C "$work" config protocol.ext.allow always
  git -C "$work" remote add origin \
    'ext::kubectl exec -i -n pgitops-system git -- %S /srv/git/config.git'
}

note() {
  local refs='refs/notes/pgitops/*'
  # kubectl grumbles when git hangs up first.
  git -C "$work" fetch -q origin "+$refs:$refs" 2>>"$folder/git.log" || return
  git -C "$work" log -1 --notes='pgitops/*' --format=%N "$commit"
}

note_says() { note | grep -q "$1"; }

# proven CONNECTIONS MEMORY: the request has succeeded, the note says so, every server shows it.
# Prints how long it took. A request that failed instead runs into the deadline.
proven() {
  within 120 "the request of ${commit:0:7} is Successful" seen requests "$commit Successful"
  printf '   pushed -> in progress: %s ms, -> successful: %s ms\n' \
    $(($(seen requests "$commit Progressing") - pushed)) \
    $(($(seen requests "$commit Successful") - pushed))
  within 60 "the note of ${commit:0:7} says that it is applied" note_says '^APPLIED: 1 of 1'
  note_says 'Outcome: applied, proven on 3 of 3 nodes' || die "the note is another: $(note)"
  local address
  for address in $(each_pod '{.status.podIP}'); do
    [ "$(ask "$address" "show max_connections; show work_mem")" = "$1"$'\n'"$2" ] ||
      die "the server at $address shows other values than $1 and $2"
  done
  within 20 'the database is not left paused' not_paused
  note | sed -n 's/^\(Order\|Impact\):/   \1:/p'
}

not_paused() { [ "$(tail -n 1 "$watched/paused" | cut -d = -f 2)" != True ]; }

# each_pod JSONPATH: of every pod of the database, a line each.
each_pod() {
  kubectl get pods -n demo -l "app.kubernetes.io/instance=$database" \
    -o "jsonpath={range .items[*]}$1{\"\\n\"}{end}"
}

# What changes when a pod is replaced or a container restarted.
identities() {
  each_pod '{.metadata.name} {.metadata.uid} restarts={.status.containerStatuses[0].restartCount}'
}

# ask ADDRESS SQL
ask() { PGPASSWORD=$password PGCONNECT_TIMEOUT=5 psql -h "$1" -U postgres -Atqc "$2"; }

# Who holds the lease; its first part is the name of a pod.
leader() {
  kubectl get lease -n pgitops-system pgitops -o 'jsonpath={.spec.holderIdentity}'
}

# another_leads IDENTITY SINCE: when somebody else was seen to hold the lease.
another_leads() {
  awk -v old="$1" -v since="$2" \
    '$1 >= since && NF == 2 && $2 != old { print $1; found = 1; exit } END { exit !found }' \
    "$watched/lease"
}

# What a person would look at, when a case has failed.
diagnose() {
  tail -n 5 "$state"/*.log || true
  kubectl get --raw /readyz >/dev/null || return 0
  echo '-- what there is'
  kubectl get nodes,pods,pvc,pg,postgresopsrequests,configrepositories -A -o wide
  echo '-- what happened last'
  kubectl get events -A --sort-by=.lastTimestamp | tail -n 25
  echo '-- the controller'
  kubectl logs -n pgitops-system -l app.kubernetes.io/name=pgitops --tail=25 --prefix
} >&2
